//! Arguments of the live page, and its start.

use std::io::IsTerminal;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use dinov2_edge::heads::PcaFit;
use dinov2_edge::view::{Access, View, ViewConfig};

use super::token;
use crate::usage;

const DEFAULT_ADDRESS: &str = "127.0.0.1:8080";

/// The live page.
#[derive(clap::Args)]
pub(super) struct ViewArgs {
    /// Serve a live page with camera, features and statistics on this address or port
    #[arg(long, value_name = "ADDRESS", num_args = 0..=1, default_missing_value = DEFAULT_ADDRESS, value_parser = address)]
    view: Option<SocketAddr>,
    /// Access token of the live page; required if other machines can reach the address. Other users of this machine can see it in
    /// the process list: prefer --token-file, or DINOV2_EDGE_TOKEN in the environment
    #[arg(long, requires = "view", conflicts_with_all = ["insecure", "token_file"])]
    token: Option<String>,
    /// File with the access token, not accessible to all users
    #[arg(long, value_name = "PATH", requires = "view", conflicts_with = "insecure")]
    token_file: Option<PathBuf>,
    /// Allow access without a token to everyone who can reach the address
    #[arg(long, requires = "view")]
    insecure: bool,
}

/// Facts about a run that its page shows.
pub(super) struct PageFacts<'a> {
    pub(super) title: &'a str,
    pub(super) model: String,
    pub(super) cameras: Vec<String>,
}

/// `ADDRESS:PORT`, or `PORT` on the loopback address.
fn address(word: &str) -> Result<SocketAddr, String> {
    let port = word.parse().map(|port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
    let named = word.strip_prefix("localhost:").and_then(|port| port.parse().ok());
    let named = named.map(|port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
    let address = port.ok().or(named).or_else(|| word.parse().ok());
    address
        .ok_or_else(|| format!("expected ADDRESS:PORT, such as {DEFAULT_ADDRESS} or 0.0.0.0:8080, or a port"))
}

impl ViewArgs {
    /// The configuration of the page, if it was requested. Called before the model is loaded, so that a wrong token fails early.
    pub(super) fn config(&self) -> anyhow::Result<Option<ViewConfig>> {
        let Some(address) = self.view else { return Ok(None) };
        let token = token::given(self.token.as_deref(), self.token_file.as_deref(), self.insecure)?;
        let access = match token {
            _ if self.insecure => Access::Insecure,
            Some(token) => Access::Token(token),
            None => Access::Local,
        };
        ViewConfig::new(address, access).map(Some).map_err(usage)
    }
}

/// Starts the page and prints its address.
pub(super) fn start(mut config: ViewConfig, facts: PageFacts<'_>) -> anyhow::Result<View> {
    config.title = facts.title.into();
    config.model = facts.model;
    config.cameras = facts.cameras;
    config.pca = PcaFit::Frozen;
    let token = config.token().map(str::to_owned);
    let view = View::start(config)?;
    let address = view.address();
    match token {
        None => tell!("live page: http://{address}/"),
        // The token must not be in logs, which others may read.
        Some(token) if std::io::stderr().is_terminal() => {
            tell!("live page: http://{address}/?token={token}");
        }
        Some(_) => tell!("live page: http://{address}/ (append ?token=TOKEN to the address)"),
    }
    Ok(view)
}
