//! What holds for any input, target by target. Each check panics where it does not.
//!
//! The fuzzer calls them through `targets/`, the ordinary tests through `smoke.rs`.

use eddy_core::identity::is_formatting;

pub(crate) mod config_file;
pub(crate) mod handshake_request;
pub(crate) mod handshake_response;
pub(crate) mod rc_address;
pub(crate) mod rping_stream;
pub(crate) mod scenario_file;

/// What is said to a person is one line, whatever the input was.
fn one_line(said: &str) {
    assert!(
        !said.chars().any(|c| c.is_control() || is_formatting(c)),
        "{said:?}"
    );
}
