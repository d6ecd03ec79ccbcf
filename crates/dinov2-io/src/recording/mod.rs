//! What recordings are made of: ROS 2 messages in CDR, and their definitions.

mod cdr;
mod messages;

pub(crate) use cdr::{CdrError, cdr_from_message, message_from_cdr};
pub(crate) use messages::{
    COMPRESSED_IMAGE, CompressedImage, FEATURE_MAP, FeatureMap, HEAD_VALUES, HeadValues, Header, IMAGE,
    IMAGE_TYPE, Image, LIVE_STATS, LiveStatsMessage, MessageType, Time,
};

/// How channels say that their messages are CDR.
pub(crate) const MESSAGE_ENCODING: &str = "cdr";
/// How schemas say that they are the text of `.msg` files.
pub(crate) const SCHEMA_ENCODING: &str = "ros2msg";
/// Topics below this are made here from camera images, and are no camera images themselves.
pub(crate) const OWN_TOPICS: &str = "/dinov2/";
