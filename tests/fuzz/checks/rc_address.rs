//! Any text is an address that is spelt back as the same address, or is refused at a place in it.

use eddy_core::address::TunnelAddress;

use super::one_line;

pub(crate) fn check(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    match TunnelAddress::parse(text) {
        Ok(address) => {
            let spelt = address.to_string();
            one_line(&spelt);
            assert_eq!(TunnelAddress::parse(&spelt), Ok(address), "spelt {spelt:?}");
        }
        Err(error) => {
            assert!(text.is_char_boundary(error.at), "{error:?}");
            one_line(&error.to_string());
        }
    }
}
