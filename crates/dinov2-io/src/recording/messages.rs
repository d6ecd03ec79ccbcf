//! The messages, field for field as their `.msg` files say.

use serde::{Deserialize, Serialize, Serializer};

use crate::LiveStats;

/// A ROS message type and its definition.
pub(crate) struct MessageType {
    /// Such as `std_msgs/msg/Header`.
    pub(crate) name: &'static str,
    /// Its `.msg` file, then those of the types that it uses.
    pub(crate) definition: &'static str,
}

/// Puts the definitions of other types behind one, in the manner of `ros2msg`: each behind a line of 80 equals signs and
/// its name.
macro_rules! definition {
    ($file:literal $(, $name:literal)*) => {
        concat!(
            include_str!(concat!("msg/", $file, ".msg")),
            $(
                "================================================================================\nMSG: ",
                $name,
                "\n",
                include_str!(concat!("msg/", $name, ".msg")),
            )*
        )
    };
}

pub(crate) const COMPRESSED_IMAGE: MessageType = MessageType {
    name: "sensor_msgs/msg/CompressedImage",
    definition: definition!("sensor_msgs/CompressedImage", "std_msgs/Header", "builtin_interfaces/Time"),
};
pub(crate) const FEATURE_MAP: MessageType = MessageType {
    name: "dinov2_msgs/msg/FeatureMap",
    definition: definition!("dinov2_msgs/FeatureMap", "std_msgs/Header", "builtin_interfaces/Time"),
};
pub(crate) const LIVE_STATS: MessageType = MessageType {
    name: "dinov2_msgs/msg/LiveStats",
    definition: definition!("dinov2_msgs/LiveStats", "std_msgs/Header", "builtin_interfaces/Time"),
};
pub(crate) const HEAD_VALUES: MessageType = MessageType {
    name: "dinov2_msgs/msg/HeadValues",
    definition: definition!("dinov2_msgs/HeadValues", "std_msgs/Header", "builtin_interfaces/Time"),
};
pub(crate) const IMAGE: &str = "sensor_msgs/msg/Image";
pub(crate) const IMAGE_TYPE: MessageType = MessageType {
    name: IMAGE,
    definition: definition!("sensor_msgs/Image", "std_msgs/Header", "builtin_interfaces/Time"),
};

const NS_PER_S: u64 = 1_000_000_000;

/// `builtin_interfaces/msg/Time`: UNIX time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Time {
    pub(crate) sec: i32,
    pub(crate) nanosec: u32,
}

impl Time {
    /// The last moment that the type knows (in 2038) for later ones.
    pub(crate) fn from_ns(unix_ns: u64) -> Self {
        let nanosec = u32::try_from(unix_ns % NS_PER_S).expect("less than a second");
        match i32::try_from(unix_ns / NS_PER_S) {
            Ok(sec) => Self { sec, nanosec },
            Err(_) => Self { sec: i32::MAX, nanosec: 999_999_999 },
        }
    }

    /// None for times before 1970, and for zero, which means that the time is not set.
    pub(crate) fn as_ns(self) -> Option<u64> {
        let ns = u64::try_from(self.sec).ok()? * NS_PER_S + u64::from(self.nanosec);
        (ns > 0).then_some(ns)
    }
}

/// `std_msgs/msg/Header`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Header {
    pub(crate) stamp: Time,
    pub(crate) frame_id: String,
}

/// `sensor_msgs/msg/CompressedImage`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct CompressedImage<'a> {
    pub(crate) header: Header,
    pub(crate) format: String,
    #[serde(borrow, serialize_with = "bytes")]
    pub(crate) data: &'a [u8],
}

/// `sensor_msgs/msg/Image`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Image<'a> {
    pub(crate) header: Header,
    pub(crate) height: u32,
    pub(crate) width: u32,
    pub(crate) encoding: String,
    pub(crate) is_bigendian: u8,
    /// Bytes of a row.
    pub(crate) step: u32,
    #[serde(borrow, serialize_with = "bytes")]
    pub(crate) data: &'a [u8],
}

/// `dinov2_msgs/msg/FeatureMap`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct FeatureMap<'a> {
    pub(crate) header: Header,
    pub(crate) rows: u32,
    pub(crate) cols: u32,
    pub(crate) dim: u32,
    pub(crate) dtype: &'static str,
    pub(crate) scale: f32,
    pub(crate) patch_size: u32,
    pub(crate) model: &'a str,
    pub(crate) image_width: u32,
    pub(crate) image_height: u32,
    pub(crate) crop_left: u32,
    pub(crate) crop_top: u32,
    pub(crate) crop_width: u32,
    pub(crate) crop_height: u32,
    pub(crate) latency_ms: f32,
    pub(crate) cls: &'a [f32],
    #[serde(serialize_with = "bytes")]
    pub(crate) data: &'a [u8],
}

/// `dinov2_msgs/msg/HeadValues`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct HeadValues<'a> {
    pub(crate) header: Header,
    pub(crate) kind: &'static str,
    pub(crate) shape: Vec<u32>,
    pub(crate) data: &'a [f32],
}

/// `dinov2_msgs/msg/LiveStats`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct LiveStatsMessage {
    header: Header,
    uptime_s: f64,
    frames: u64,
    fps: f64,
    latency_p50_ms: f64,
    latency_p95_ms: f64,
    latency_p99_ms: f64,
    extract_p50_ms: f64,
    extract_p95_ms: f64,
    extract_p99_ms: f64,
    dropped_engine_busy: u64,
    dropped_sink_busy: u64,
    dropped_rate_limit: u64,
    lost_stale: u64,
    lost_missed: u64,
    lost_corrupt: u64,
    reopened: u64,
    temperature_c: f64,
    throttled: i8,
}

impl LiveStatsMessage {
    pub(crate) fn new(stats: &LiveStats, unix_ns: u64) -> Self {
        Self {
            header: Header { stamp: Time::from_ns(unix_ns), frame_id: String::new() },
            uptime_s: stats.uptime_s,
            frames: stats.frames,
            fps: stats.fps,
            latency_p50_ms: stats.latency_ms.p50,
            latency_p95_ms: stats.latency_ms.p95,
            latency_p99_ms: stats.latency_ms.p99,
            extract_p50_ms: stats.extract_ms.p50,
            extract_p95_ms: stats.extract_ms.p95,
            extract_p99_ms: stats.extract_ms.p99,
            dropped_engine_busy: stats.drops.engine_busy,
            dropped_sink_busy: stats.drops.sink_busy,
            dropped_rate_limit: stats.drops.rate_limit,
            lost_stale: stats.losses.stale,
            lost_missed: stats.losses.missed,
            lost_corrupt: stats.losses.corrupt,
            reopened: stats.losses.reopened,
            temperature_c: stats.temperature_c.unwrap_or(f64::NAN),
            throttled: stats.throttled.map_or(-1, i8::from),
        }
    }
}

/// A byte array at once; serde's own way for slices is byte by byte.
fn bytes<S: Serializer>(bytes: &&[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_end_in_2038() {
        let time = Time::from_ns(1_700_000_000_123_456_789);
        assert_eq!(time, Time { sec: 1_700_000_000, nanosec: 123_456_789 });
        assert_eq!(time.as_ns(), Some(1_700_000_000_123_456_789));
        assert_eq!(Time::from_ns(u64::MAX), Time { sec: i32::MAX, nanosec: 999_999_999 });
        assert_eq!(Time { sec: -1, nanosec: 0 }.as_ns(), None);
        assert_eq!(Time::default().as_ns(), None);
    }
}
