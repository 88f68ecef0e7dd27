//! Names by the system's configuration: its servers, its search list, its file of hosts.
//!
//! The configuration is read for each question: what a network change writes there holds from the next one on. Answers are
//! asked for again when they are no longer fresh, so nothing here keeps them.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use hickory_resolver::config::LookupIpStrategy;
use hickory_resolver::lookup_ip::LookupIp;
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::{Hosts, ResolverBuilder, TokioResolver};

use super::Resolved;

type Builder = ResolverBuilder<TokioRuntimeProvider>;

/// Every address of a name, of either family.
pub(super) async fn by_system(name: &str, port: u16) -> io::Result<Resolved> {
    if let Ok(hosts) = Hosts::from_system()
        && let Some(found) = by_file(&hosts, name, port)
    {
        return Ok(found);
    }
    match (TokioResolver::builder_tokio(), TokioResolver::builder_tokio()) {
        (Ok(v4), Ok(v6)) => ask(v4, v6, name, port).await,
        // A machine without a configuration for names may have other ways, which the C library knows.
        _ => by_library(name, port).await,
    }
}

/// What the file of hosts says of a name is all there is to say: nobody waits for a server.
fn by_file(hosts: &Hosts, name: &str, port: u16) -> Option<Resolved> {
    let name = Name::from_utf8(name).ok()?;
    let families = [RecordType::A, RecordType::AAAA];
    let found = families.map(|family| hosts.lookup_static_host(&Query::query(name.clone(), family)));
    let addresses: Vec<_> = found
        .into_iter()
        .flatten()
        .flat_map(|lookup| addresses(&lookup.into(), port))
        .collect();
    (!addresses.is_empty()).then(|| Resolved::new(addresses, None))
}

async fn by_library(name: &str, port: u16) -> io::Result<Resolved> {
    let addresses = tokio::net::lookup_host((name, port)).await?;
    Ok(Resolved::new(addresses.collect(), None))
}

/// Asks for the addresses of both families at once. Where one question has no answer, what the other one says is a part.
async fn ask(v4: Builder, v6: Builder, name: &str, port: u16) -> io::Result<Resolved> {
    let (v4, v6) = tokio::join!(
        ask_for(v4, LookupIpStrategy::Ipv4Only, name),
        ask_for(v6, LookupIpStrategy::Ipv6Only, name)
    );
    let is_whole = v4.is_ok() && v6.is_ok();
    let answers: Vec<_> = match (v4, v6) {
        (Err(error), Err(_)) => return Err(io::Error::other(error)),
        (v4, v6) => [v4, v6].into_iter().flatten().flatten().collect(),
    };
    if answers.is_empty() && is_whole {
        return Err(io::Error::new(io::ErrorKind::NotFound, "no such name"));
    }
    let records = answers.iter().flat_map(|answer| answer.as_lookup().answers());
    let fresh_for = records.map(|record| record.ttl).min();
    let fresh_for = fresh_for.map(|seconds| Duration::from_secs(seconds.into()));
    let addresses = answers
        .iter()
        .flat_map(|answer| addresses(answer, port))
        .collect();
    Ok(Resolved {
        is_whole,
        ..Resolved::new(addresses, fresh_for)
    })
}

/// The addresses of one family; none, if the name has none.
async fn ask_for(
    mut builder: Builder,
    family: LookupIpStrategy,
    name: &str,
) -> Result<Option<LookupIp>, NetError> {
    let options = builder.options_mut();
    options.ip_strategy = family;
    options.cache_size = 0;
    match builder.build()?.lookup_ip(name).await {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if error.is_no_records_found() => Ok(None),
        Err(error) => Err(error),
    }
}

fn addresses(answer: &LookupIp, port: u16) -> Vec<SocketAddr> {
    answer.iter().map(|ip| SocketAddr::new(ip, port)).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
    use hickory_resolver::proto::op::{Message, ResponseCode};
    use hickory_resolver::proto::rr::rdata::A;
    use hickory_resolver::proto::rr::{RData, Record};
    use tokio::net::UdpSocket;

    use super::*;

    /// A server on a port of its own that knows `two.test`, and of `half.test` half.
    async fn server() -> impl Fn() -> Builder {
        let socket = UdpSocket::bind(("127.0.0.1", 0)).await.unwrap();
        let port = socket.local_addr().unwrap().port();
        tokio::task::spawn_local(async move {
            let mut packet = [0; 1500];
            loop {
                let (length, asker) = socket.recv_from(&mut packet).await.unwrap();
                let question = Message::from_vec(&packet[..length]).unwrap();
                let mut answer = question.clone().into_response();
                let query = question.queries.first().unwrap();
                let name = query.name().to_ascii();
                if name == "half.test." && query.query_type() == RecordType::AAAA {
                    answer.metadata.response_code = ResponseCode::ServFail;
                } else if name == "three.test." {
                    answer.metadata.response_code = ResponseCode::NXDomain;
                } else if query.query_type() == RecordType::A {
                    for (last, ttl) in [(2, 90), (1, 30)] {
                        let address = RData::A(A(Ipv4Addr::new(10, 0, 0, last)));
                        answer
                            .answers
                            .push(Record::from_rdata(query.name().clone(), ttl, address));
                    }
                }
                socket.send_to(&answer.to_vec().unwrap(), asker).await.unwrap();
            }
        });
        let mut over_udp = ConnectionConfig::udp();
        over_udp.port = port;
        let server = NameServerConfig::new(IpAddr::from([127, 0, 0, 1]), true, vec![over_udp]);
        let config = ResolverConfig::from_parts(None, vec![], vec![server]);
        move || TokioResolver::builder_with_config(config.clone(), TokioRuntimeProvider::default())
    }

    async fn found(name: &str) -> io::Result<Resolved> {
        let server = server().await;
        ask(server(), server(), name, 9).await
    }

    #[tokio::test(flavor = "local")]
    async fn all_addresses_are_told_and_as_long_as_the_shortest_lives_they_are_fresh() {
        let found = found("two.test.").await.unwrap();
        let expected = [1, 2].map(|last| SocketAddr::from(([10, 0, 0, last], 9)));
        assert_eq!(found.addresses, expected);
        assert_eq!(found.fresh_for, Some(Duration::from_secs(30)));
        assert!(found.is_whole);
    }

    #[tokio::test(flavor = "local")]
    async fn half_an_answer_is_said_to_be_one() {
        let found = found("half.test.").await.unwrap();
        assert_eq!((found.addresses.len(), found.is_whole), (2, false));
    }

    #[test]
    fn the_file_of_hosts_goes_before_all_servers() {
        let mut hosts = Hosts::default();
        hosts
            .read_hosts_conf(&b"10.0.0.7 hub hub.internal\n::7 hub\n"[..])
            .unwrap();
        let found = |name| by_file(&hosts, name, 9).map(|found| found.addresses);
        let v4 = SocketAddr::from(([10, 0, 0, 7], 9));
        let v6 = "[::7]:9".parse().unwrap();
        assert_eq!(found("hub"), Some(vec![v4, v6]));
        assert_eq!(found("hub.internal"), Some(vec![v4]));
        assert_eq!(found("spoke"), None);
    }

    #[tokio::test(flavor = "local")]
    async fn a_name_that_is_none_is_said_to_be_none() {
        let error = found("three.test.").await.unwrap_err();
        assert_eq!(
            (error.kind(), error.to_string().as_str()),
            (io::ErrorKind::NotFound, "no such name")
        );
    }
}
