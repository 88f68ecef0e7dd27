//! Connections that are no tunnels: scanners, slow handshakes, floods.

use std::net::SocketAddr;
use std::time::Duration;

use eddy_runtime::net::Network;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::fabric::SimNetwork;
use crate::scenario::Noise;

/// Makes one kind of noise to its end.
pub(crate) async fn run(net: SimNetwork, noise: Noise, to: SocketAddr) {
    tokio::time::sleep(noise.start).await;
    for _ in 0..noise.connections {
        tokio::task::spawn_local(one(net.clone(), noise.clone(), to));
        tokio::time::sleep(noise.every).await;
    }
}

async fn one(net: SimNetwork, noise: Noise, to: SocketAddr) {
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
