//! `GET /reverse_connections`: the JSON of the sandbox's first form (wire.md section 15), which scripts use.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use eddy_core::identity::Identity;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde::Serialize;

use crate::http::query::{Parameters, parameters};

/// The path, on the responder's tunnel port and on the initiator's API port.
pub(crate) const PATH: &str = "/reverse_connections";

#[derive(Serialize)]
struct Connections<'a> {
    accepted: BTreeSet<&'a str>,
    connected: BTreeSet<&'a str>,
}

#[derive(Serialize)]
struct Available {
    available_connections: u32,
}

fn json(value: &impl Serialize) -> Response<Full<Bytes>> {
    let text = serde_json::to_string(value).unwrap_or_default();
    let mut response = Response::new(Full::new(Bytes::from(text)));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn refuse(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

/// Answers a request for [`PATH`], and refuses any other.
fn answer<B>(
    request: &Request<B>,
    answer: impl FnOnce(&Parameters<'_>) -> Response<Full<Bytes>>,
) -> Response<Full<Bytes>> {
    if request.uri().path() != PATH {
        return refuse(StatusCode::NOT_FOUND, "only /reverse_connections is here\n");
    }
    if *request.method() != Method::GET {
        return refuse(StatusCode::METHOD_NOT_ALLOWED, "only GET is allowed\n");
    }
    answer(&parameters(request.uri()))
}

/// A responder's answer: the nodes that it accepted, or how many tunnels one node or cluster has.
pub(crate) fn of_responder<B>(
    request: &Request<B>,
    identities: &BTreeMap<Arc<Identity>, u32>,
) -> Response<Full<Bytes>> {
    let count = |belongs: &dyn Fn(&Identity) -> bool| {
        let counts = identities
            .iter()
            .filter(|(identity, _)| belongs(identity))
            .map(|(_, n)| n);
        json(&Available {
            available_connections: counts.sum(),
        })
    };
    answer(request, |query| {
        if let Some(node) = query.get("node_id") {
            return count(&|identity| identity.node.as_str() == node);
        }
        if let Some(cluster) = query.get("cluster_id") {
            return count(&|identity| identity.cluster.as_str() == cluster);
        }
        let accepted = identities.keys().map(|identity| identity.node.as_str()).collect();
        json(&Connections {
            accepted,
            connected: BTreeSet::new(),
        })
    })
}

/// An initiator's answer: the upstream clusters that it has a tunnel to.
pub(crate) fn of_initiator<B>(
    request: &Request<B>,
    clusters: &BTreeMap<String, u32>,
) -> Response<Full<Bytes>> {
    answer(request, |query| {
        if let Some(cluster) = query.get("cluster_id").or_else(|| query.get("node_id")) {
            return json(&Available {
                available_connections: clusters.get(&**cluster).copied().unwrap_or(0),
            });
        }
        let up = clusters.iter().filter(|(_, tunnels)| **tunnels > 0);
        let connected = up.map(|(name, _)| name.as_str()).collect();
        json(&Connections {
            accepted: BTreeSet::new(),
            connected,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use eddy_core::identity::{ClusterId, NodeId, TenantId};
    use http_body_util::BodyExt;

    fn responder(uri: &str) -> (u16, String) {
        let who = |cluster: &str, node: &str| {
            Arc::new(Identity {
                tenant: TenantId::parse("t").unwrap(),
                cluster: ClusterId::parse(cluster).unwrap(),
                node: NodeId::parse(node).unwrap(),
            })
        };
        let identities = BTreeMap::from([
            (who("c", "b"), 2),
            (who("c", "a"), 1),
            (who("d", "a"), 1),
            (who("d", "a b:c"), 4),
        ]);
        read(of_responder(&Request::get(uri).body(()).unwrap(), &identities))
    }

    fn read(response: Response<Full<Bytes>>) -> (u16, String) {
        let status = response.status().as_u16();
        let body = futures(response.into_body());
        (status, body)
    }

    fn futures(body: Full<Bytes>) -> String {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let bytes = runtime.block_on(body.collect()).unwrap().to_bytes();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[test]
    fn a_responder_lists_its_nodes() {
        let expected = "{\"accepted\":[\"a\",\"a b:c\",\"b\"],\"connected\":[]}";
        assert_eq!(responder("/reverse_connections"), (200, expected.to_owned()));
    }

    #[test]
    fn a_query_counts_tunnels() {
        let answer = |n| (200, format!("{{\"available_connections\":{n}}}"));
        assert_eq!(responder("/reverse_connections?node_id=a"), answer(2));
        assert_eq!(responder("/reverse_connections?cluster_id=c"), answer(3));
        assert_eq!(responder("/reverse_connections?node_id=zzz"), answer(0));
    }

    #[test]
    fn a_query_is_decoded() {
        for id in ["a%20b:c", "a+b:c", "a+b%3Ac", "a%20b%3ac"] {
            let answer = responder(&format!("/reverse_connections?node_id={id}")).1;
            assert_eq!(answer, "{\"available_connections\":4}", "{id}");
        }
    }

    #[test]
    fn an_initiator_lists_the_clusters_that_it_reaches() {
        let clusters = BTreeMap::from([("up".to_owned(), 1), ("down".to_owned(), 0)]);
        let ask = |uri: &str| read(of_initiator(&Request::get(uri).body(()).unwrap(), &clusters)).1;
        assert_eq!(
            ask("/reverse_connections"),
            "{\"accepted\":[],\"connected\":[\"up\"]}"
        );
        assert_eq!(
            ask("/reverse_connections?cluster_id=down"),
            "{\"available_connections\":0}"
        );
    }

    #[test]
    fn nothing_else_is_here() {
        assert_eq!(responder("/elsewhere").0, 404);
        let post = Request::post("/reverse_connections").body(()).unwrap();
        assert_eq!(of_responder(&post, &BTreeMap::new()).status(), 405);
    }
}
