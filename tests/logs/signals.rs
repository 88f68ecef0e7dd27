//! Signals that do not end a process; SIGHUP reopens the access log.

use crate::kit::{Pair, wait_for};
use crate::{lines, logging_pair};

#[test]
fn sighup_reopens_the_access_log_after_a_rotation() {
    let folder = tempfile::tempdir().unwrap();
    let pair = logging_pair(folder.path());
    for (role, eddy) in [("responder", &pair.responder), ("initiator", &pair.initiator)] {
        pair.assert_good();
        assert_eq!(lines(folder.path(), role, 1).len(), 1);
        std::fs::rename(folder.path().join(role), folder.path().join("rotated")).unwrap();
        pair.assert_good();
        assert_eq!(
            lines(folder.path(), "rotated", 2).len(),
            2,
            "until the signal it is the same file"
        );
        eddy.signal("HUP");
        wait_for("the file to be reopened", || {
            eddy.log().contains("access log reopened").then_some(())
        });
        pair.assert_good();
        assert_eq!(lines(folder.path(), role, 1).len(), 1);
        assert_eq!(lines(folder.path(), "rotated", 2).len(), 2);
        std::fs::remove_file(folder.path().join("rotated")).unwrap();
        // The other role has its first file still, with a line of each request.
        if role == "responder" {
            std::fs::write(folder.path().join("initiator"), "").unwrap();
        }
    }
}

#[test]
fn an_access_log_that_cannot_be_reopened_stays_open() {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("logs");
    std::fs::create_dir(&inner).unwrap();
    let pair = logging_pair(&inner);
    let moved = folder.path().join("moved");
    std::fs::rename(&inner, &moved).unwrap();
    pair.responder.signal("HUP");
    wait_for("the failure to be logged", || {
        pair.responder
            .log()
            .contains("cannot reopen the access log")
            .then_some(())
    });
    pair.assert_good();
    assert_eq!(lines(&moved, "responder", 1).len(), 1);
}

#[test]
fn signals_of_other_programs_do_not_end_a_process() {
    let mut pair = Pair::start();
    for eddy in [&mut pair.responder, &mut pair.initiator] {
        for signal in ["HUP", "USR1", "USR2"] {
            eddy.signal(signal);
        }
        for line in [
            "SIGHUP: reopening log files",
            "SIGUSR1 ignored",
            "SIGUSR2 ignored",
        ] {
            wait_for(line, || eddy.log().contains(line).then_some(()));
        }
        assert!(eddy.is_running());
    }
    pair.assert_good();
}
