//! The plain-text service of the sandbox; answers like the image `nginxdemos/hello:plain-text`.

use std::cell::RefCell;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, UNIX_EPOCH};

use eddy_core::rng::Rng;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, EXPIRES, HeaderName, HeaderValue, SERVER};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;

use crate::net::{Listener, Network, Stream};

/// What the service says of itself.
#[derive(Clone, Debug)]
pub struct Hello {
    /// The name of the machine.
    pub server_name: String,
    /// Where request ids come from; they need only differ.
    pub seed: u64,
}

/// Serves until dropped.
pub async fn serve<N: Network>(net: N, listener: N::Listener, hello: Hello) {
    let rng = Rc::new(RefCell::new(Rng::from_seed(hello.seed)));
    let hello = Rc::new(hello);
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let Ok(local) = stream.local_addr() else {
            continue;
        };
        let (net, hello, rng) = (net.clone(), Rc::clone(&hello), Rc::clone(&rng));
        tokio::task::spawn_local(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let id = request_id(&mut rng.borrow_mut());
                let answer = answer(&hello.server_name, local, net.wall(), &request, &id);
                std::future::ready(Ok::<_, Infallible>(answer))
            });
            // A client that breaks off ends its own connection only.
            let _ = crate::http::server(None)
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

fn request_id(rng: &mut Rng) -> String {
    format!("{:016x}{:016x}", rng.next_u64(), rng.next_u64())
}

fn answer<B>(
    server_name: &str,
    local: SocketAddr,
    wall: Duration,
    request: &Request<B>,
    id: &str,
) -> Response<Full<Bytes>> {
    let uri = request.uri().path_and_query().map_or("/", |p| p.as_str());
    let date = common_log_date(wall);
    let body = format!(
        "Server address: {local}\nServer name: {server_name}\nDate: {date}\nURI: {uri}\nRequest ID: {id}\n"
    );
    let mut response = Response::new(Full::new(Bytes::from(body)));
    let headers = response.headers_mut();
    headers.insert(SERVER, HeaderValue::from_static("eddy-hello"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    put_date(headers, hyper::header::DATE, wall);
    put_date(headers, EXPIRES, wall.saturating_sub(Duration::from_secs(1)));
    response
}

fn put_date(headers: &mut hyper::HeaderMap, name: HeaderName, wall: Duration) {
    if let Ok(value) = HeaderValue::try_from(httpdate::fmt_http_date(UNIX_EPOCH + wall)) {
        headers.insert(name, value);
    }
}

/// `25/Sep/2025:21:25:38 +0000`, as nginx writes it, from `Thu, 25 Sep 2025 21:25:38 GMT`.
fn common_log_date(wall: Duration) -> String {
    let date = httpdate::fmt_http_date(UNIX_EPOCH + wall);
    let mut words = date.split(' ').skip(1);
    let mut next = || words.next().unwrap_or_default();
    let (day, month, year, time) = (next(), next(), next(), next());
    format!("{day}/{month}/{year}:{time} +0000")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_has_the_five_lines_of_the_seed() {
        let request = Request::get("http://localhost:8085/downstream_service")
            .body(())
            .unwrap();
        let wall = Duration::from_secs(1_758_835_538);
        let response = answer(
            "b490f264caf9",
            "172.27.0.3:80".parse().unwrap(),
            wall,
            &request,
            "41807e3cd1f6a0b601597b80f7e51513",
        );
        assert_eq!(response.headers()[CONTENT_TYPE], "text/plain");
        assert_eq!(response.headers()[EXPIRES], "Thu, 25 Sep 2025 21:25:37 GMT");
        let body = format!("{:?}", response.into_body());
        for line in [
            "Server address: 172.27.0.3:80",
            "Server name: b490f264caf9",
            "Date: 25/Sep/2025:21:25:38 +0000",
            "URI: /downstream_service",
            "Request ID: 41807e3cd1f6a0b601597b80f7e51513",
        ] {
            assert!(body.contains(line), "{line} in {body}");
        }
    }

    #[test]
    fn request_ids_differ() {
        let mut rng = Rng::from_seed(7);
        assert_ne!(request_id(&mut rng), request_id(&mut rng));
    }
}
