//! The parameters of a URI's query.

use std::borrow::Cow;
use std::collections::BTreeMap;

use hyper::Uri;

/// Parameters by name. A parameter without a value has the empty text; of a repeated one, the last value counts.
pub(crate) type Parameters<'a> = BTreeMap<Cow<'a, str>, Cow<'a, str>>;

/// Decodes a query as browsers and `curl --data-urlencode` encode it (URL Standard, application/x-www-form-urlencoded):
/// `%20` and `+` are spaces.
pub(crate) fn parameters(uri: &Uri) -> Parameters<'_> {
    form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).collect()
}

/// Decodes a query as Envoy's admin does: `+` stays as it is, because regular expressions contain it.
pub(crate) fn parameters_with_plus(query: &str) -> Parameters<'static> {
    let escaped = query.replace('+', "%2B");
    form_urlencoded::parse(escaped.as_bytes())
        .map(|(name, value)| (name.into_owned().into(), value.into_owned().into()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(query: &str) -> String {
        let uri: Uri = format!("/?id={query}").parse().unwrap();
        parameters(&uri)["id"].to_string()
    }

    #[test]
    fn escapes_and_plus_signs_are_decoded() {
        assert_eq!(value("a%20b"), "a b");
        assert_eq!(value("a+b"), "a b");
        assert_eq!(value("a%2Bb"), "a+b");
        assert_eq!(value("a:b"), "a:b");
        assert_eq!(value("a%3Ab"), "a:b");
    }

    #[test]
    fn invalid_escapes_are_kept() {
        assert_eq!(value("100%25%zz%"), "100%%zz%");
    }

    #[test]
    fn names_without_values_are_kept() {
        let uri: Uri = "/?usedonly&filter=&usedonly".parse().unwrap();
        let expected = [("filter", ""), ("usedonly", "")].map(|(name, value)| (name.into(), value.into()));
        assert_eq!(parameters(&uri), Parameters::from(expected));
        assert_eq!(parameters(&"/".parse().unwrap()), Parameters::new());
    }

    #[test]
    fn a_plus_sign_can_be_literal() {
        assert_eq!(parameters_with_plus("filter=a.+%20b")["filter"], "a.+ b");
    }
}
