//! Connections that are not tunnels: scanners, slow handshakes, floods.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use eddy_runtime::net::Network;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::fabric::{SimNetwork, now};
use crate::scenario::Noise;

/// Makes the share of one kind of noise that comes from one of its source hosts. Nothing is connected again after `end`.
pub(crate) async fn run(net: SimNetwork, noise: Rc<Noise>, source: u32, to: SocketAddr, end: Duration) {
    tokio::time::sleep(noise.start).await;
    for number in 0..noise.connections {
        if number % noise.sources == source {
            tokio::task::spawn_local(again(net.clone(), Rc::clone(&noise), to, end));
        }
        tokio::time::sleep(noise.every).await;
    }
}

async fn again(net: SimNetwork, noise: Rc<Noise>, to: SocketAddr, end: Duration) {
    loop {
        one(&net, &noise, to).await;
        let Some(pause) = noise.again else { return };
        tokio::time::sleep(pause).await;
        if now() >= end {
            return;
        }
    }
}

async fn one(net: &SimNetwork, noise: &Noise, to: SocketAddr) {
    let Ok(mut stream) = net.connect(to).await else {
        return;
    };
    let talk = async {
        if noise.drip.is_zero() {
            stream.write_all(noise.sends.as_bytes()).await?;
        } else {
            for byte in noise.sends.bytes() {
                stream.write_all(&[byte]).await?;
                tokio::time::sleep(noise.drip).await;
            }
        }
        // Until the other side has had enough.
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await
    };
    // Whatever the other side does to a stranger is fine.
    let _ = tokio::time::timeout(noise.stays.max(Duration::from_millis(1)), talk).await;
}
