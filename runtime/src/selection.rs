//! The tunnels that an operator selects, for example to drain them.

use eddy_core::identity::{Identity, TunnelId};

/// A selection of tunnels: each field that is set narrows it, and the empty selection contains every tunnel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// The tunnels of this node.
    pub node: Option<String>,
    /// The tunnels of this cluster.
    pub cluster: Option<String>,
    /// The tunnels of this tenant.
    pub tenant: Option<String>,
    /// The tunnel with this id.
    pub tunnel: Option<String>,
}

impl Selection {
    /// Whether a tunnel is selected.
    pub fn means(&self, tunnel: TunnelId, identity: &Identity) -> bool {
        let fits = |wanted: &Option<String>, is: &str| wanted.as_ref().is_none_or(|wanted| wanted == is);
        fits(&self.node, identity.node.as_str())
            && fits(&self.cluster, identity.cluster.as_str())
            && fits(&self.tenant, identity.tenant.as_str())
            && self.tunnel.as_ref().is_none_or(|id| *id == tunnel.to_string())
    }
}
