//! Any text is a configuration whose effective form means the same, or is refused in one line that names the file.

use eddy_runtime::config::Config;

use super::one_line;

pub(crate) fn check(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    match Config::parse("x.yaml", text) {
        Ok(config) => {
            let effective = config.effective();
            let again = Config::parse("effective", &effective);
            assert!(
                again.as_ref().is_ok_and(|again| *again == config),
                "{again:?}\n{effective}"
            );
        }
        Err(error) => {
            let said = error.to_string();
            assert!(said.starts_with("x.yaml"), "{said:?}");
            one_line(&said);
        }
    }
}
