//! The tunnels that an operator means.

use crate::identity::{Identity, TunnelId};

/// The tunnels that an operator means; a field that is not set means all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Those of this node.
    pub node: Option<String>,
    /// Those of this cluster.
    pub cluster: Option<String>,
    /// Those of this tenant.
    pub tenant: Option<String>,
    /// The tunnel of this id.
    pub tunnel: Option<String>,
}

impl Selection {
    /// Whether it contains a tunnel.
    pub fn means(&self, tunnel: TunnelId, identity: &Identity) -> bool {
        let fits = |wanted: &Option<String>, is: &str| wanted.as_ref().is_none_or(|wanted| wanted == is);
        fits(&self.node, identity.node.as_str())
            && fits(&self.cluster, identity.cluster.as_str())
            && fits(&self.tenant, identity.tenant.as_str())
            && self.tunnel.as_ref().is_none_or(|id| *id == tunnel.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{ClusterId, NodeId, TenantId, WorkerId};

    #[test]
    fn fields_that_are_not_set_mean_all() {
        let identity = Identity {
            node: NodeId::parse("n").unwrap(),
            cluster: ClusterId::parse("c").unwrap(),
            tenant: TenantId::parse("t").unwrap(),
        };
        let tunnel = TunnelId {
            named_by: WorkerId(1),
            serial: 7,
        };
        let means = |node: Option<&str>, cluster: Option<&str>, tenant: Option<&str>, id: Option<&str>| {
            let own = |text: Option<&str>| text.map(str::to_owned);
            let selection = Selection {
                node: own(node),
                cluster: own(cluster),
                tenant: own(tenant),
                tunnel: own(id),
            };
            selection.means(tunnel, &identity)
        };
        let id = tunnel.to_string();
        assert!(means(None, None, None, None));
        assert!(means(Some("n"), Some("c"), Some("t"), Some(&id)));
        assert!(!means(Some("m"), Some("c"), None, None));
        assert!(!means(None, Some("d"), None, None));
        assert!(!means(None, None, Some("u"), None));
        assert!(!means(None, None, None, Some("9-9")));
    }
}
