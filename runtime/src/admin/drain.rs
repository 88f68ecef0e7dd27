//! `POST /drain`: the end of the process, or of some of its tunnels.

use hyper::{StatusCode, Uri};

use super::{Admin, Answer, Role, plain};
use crate::http::query::parameters;
use crate::net::Network;
use eddy_core::selection::Selection;

const ALLOWED: &str = "ask for ?node=ID, ?cluster=ID, ?tenant=ID, ?tunnel=ID or several of them, or for none to end the process";

pub(super) async fn answer<N: Network>(admin: &Admin<N>, uri: &Uri) -> Answer {
    let selection = match read(uri) {
        Ok(selection) => selection,
        Err(wrong) => return plain(StatusCode::BAD_REQUEST, format!("{wrong}\n")),
    };
    if selection == Selection::default() {
        admin.drain();
        return plain(
            StatusCode::OK,
            "draining; the process ends when what runs has ended\n",
        );
    }
    let told = match &admin.role {
        Role::Responder(control) => control.leave(&selection).await,
        Role::Initiator(control) => control.renew(&selection).await,
    };
    let tunnels = if told == 1 { "tunnel" } else { "tunnels" };
    plain(StatusCode::OK, format!("draining {told} {tunnels}\n"))
}

fn read(uri: &Uri) -> Result<Selection, String> {
    let mut selection = Selection::default();
    for (key, value) in parameters(uri) {
        let slot = match &*key {
            "node" => &mut selection.node,
            "cluster" => &mut selection.cluster,
            "tenant" => &mut selection.tenant,
            "tunnel" => &mut selection.tunnel,
            _ => return Err(format!("{key}: no such parameter; {ALLOWED}")),
        };
        if value.is_empty() {
            return Err(format!("{key}: is empty; {ALLOWED}"));
        }
        *slot = Some(value.into_owned());
    }
    Ok(selection)
}
