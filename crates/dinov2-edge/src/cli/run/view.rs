use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use dinov2_edge::view::{Access, PcaMode, View, ViewConfig};

use crate::cli::usage;

const DEFAULT_ADDRESS: &str = "127.0.0.1:8080";

/// The live page.
#[derive(clap::Args)]
pub(super) struct ViewArgs {
    /// Serve a page with camera, features and statistics on this address or port
    #[arg(long, value_name = "ADDRESS", num_args = 0..=1, default_missing_value = DEFAULT_ADDRESS, value_parser = address)]
    view: Option<SocketAddr>,
    /// Word that viewers must know; needed where other machines reach the address
    #[arg(long, requires = "view", conflicts_with = "insecure")]
    token: Option<String>,
    /// Let everyone look who reaches the address
    #[arg(long, requires = "view")]
    insecure: bool,
}

/// `ADDRESS:PORT`, or `PORT` of this machine alone.
fn address(word: &str) -> Result<SocketAddr, String> {
    let port = word.parse().map(|port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
    let named = word.strip_prefix("localhost:").and_then(|port| port.parse().ok());
    let named = named.map(|port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
    let address = port.ok().or(named).or_else(|| word.parse().ok());
    address
        .ok_or_else(|| format!("expected ADDRESS:PORT, such as {DEFAULT_ADDRESS} or 0.0.0.0:8080, or a port"))
}

impl ViewArgs {
    /// Starts the page, if it was asked for, and says where it is.
    pub(super) fn start(&self, title: &str, cameras: Vec<String>) -> anyhow::Result<Option<View>> {
        let Some(address) = self.view else { return Ok(None) };
        let access = match &self.token {
            _ if self.insecure => Access::Insecure,
            Some(token) => Access::Token(token.clone()),
            None => Access::Local,
        };
        let mut config = ViewConfig::new(address, access).map_err(usage)?;
        config.title = title.into();
        config.cameras = cameras;
        config.pca = PcaMode::Frozen;
        let view = View::start(config)?;
        let query = self.token.as_ref().map(|token| format!("?token={token}")).unwrap_or_default();
        tell!("live page: http://{}/{query}", view.address());
        Ok(Some(view))
    }
}
