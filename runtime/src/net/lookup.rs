//! Names by the system's configuration: its servers, its search list, its file of hosts.
//!
//! The configuration is read for each question: what a network change writes there holds from the next one on. Answers are
//! asked for again when they are no longer fresh, so nothing here keeps them.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use hickory_resolver::config::LookupIpStrategy;
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::{ResolverBuilder, TokioResolver};

use super::Resolved;

type Builder = ResolverBuilder<TokioRuntimeProvider>;

/// Every address of a name, of either family.
pub(super) async fn by_system(name: &str, port: u16) -> io::Result<Resolved> {
    match TokioResolver::builder_tokio() {
        Ok(builder) => ask(builder, name, port).await,
        // A machine without a configuration for names may have other ways, which the C library knows.
        Err(_) => by_library(name, port).await,
    }
}

async fn by_library(name: &str, port: u16) -> io::Result<Resolved> {
    let addresses = tokio::net::lookup_host((name, port)).await?;
    Ok(Resolved::new(addresses.collect(), None))
}

async fn ask(mut builder: Builder, name: &str, port: u16) -> io::Result<Resolved> {
    let options = builder.options_mut();
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.cache_size = 0;
    let resolver = builder.build().map_err(broken)?;
    let answer = resolver.lookup_ip(name).await.map_err(broken)?;
    let lives = answer.as_lookup().answers().iter().map(|record| record.ttl);
    let fresh_for = lives.min().map(|seconds| Duration::from_secs(seconds.into()));
    let addresses = answer.iter().map(|ip| SocketAddr::new(ip, port)).collect();
    Ok(Resolved::new(addresses, fresh_for))
}

fn broken(error: NetError) -> io::Error {
    if error.is_no_records_found() {
        io::Error::new(io::ErrorKind::NotFound, "no such name")
    } else {
        io::Error::other(error)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
    use hickory_resolver::proto::op::{Message, ResponseCode};
    use hickory_resolver::proto::rr::rdata::A;
    use hickory_resolver::proto::rr::{RData, Record, RecordType};
    use tokio::net::UdpSocket;

    use super::*;

    /// A server that knows `two.test`, on a port of its own.
    async fn server() -> Builder {
        let socket = UdpSocket::bind(("127.0.0.1", 0)).await.unwrap();
        let port = socket.local_addr().unwrap().port();
        tokio::task::spawn_local(async move {
            let mut packet = [0; 1500];
            loop {
                let (length, asker) = socket.recv_from(&mut packet).await.unwrap();
                let question = Message::from_vec(&packet[..length]).unwrap();
                let mut answer = question.clone().into_response();
                let query = question.queries.first().unwrap();
                if query.name().to_ascii() != "two.test." {
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
        TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
    }

    #[tokio::test(flavor = "local")]
    async fn all_addresses_are_told_and_as_long_as_the_shortest_lives_they_are_fresh() {
        let found = ask(server().await, "two.test.", 9).await.unwrap();
        let expected = [1, 2].map(|last| SocketAddr::from(([10, 0, 0, last], 9)));
        assert_eq!(found.addresses, expected);
        assert_eq!(found.fresh_for, Some(Duration::from_secs(30)));
    }

    #[tokio::test(flavor = "local")]
    async fn a_name_that_is_none_is_said_to_be_none() {
        let error = ask(server().await, "three.test.", 9).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.to_string().as_str()),
            (io::ErrorKind::NotFound, "no such name")
        );
    }
}
