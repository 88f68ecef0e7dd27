//! A headless Chromium, told what to do over its DevTools pipe: a JSON object with a NUL behind it, each way.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::{Value, json};

/// How long the browser may take for one answer: it starts on two busy cores.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

/// Where Chromium is; `None` where somebody said that there is none.
pub(crate) fn chromium() -> Option<PathBuf> {
    let given = std::env::var_os("EDDY_CHROMIUM").unwrap_or_else(|| "/usr/bin/chromium".into());
    if given == "none" {
        eprintln!("NOT TESTED: there is no Chromium here (EDDY_CHROMIUM=none)");
        return None;
    }
    let path = PathBuf::from(given);
    assert!(
        path.exists(),
        "no Chromium at {}: run .ci/install-chromium, or set EDDY_CHROMIUM",
        path.display()
    );
    Some(path)
}

/// One page of a browser of its own.
pub(crate) struct Page {
    chromium: Child,
    to: File,
    from: Receiver<Value>,
    session: Value,
    serial: u64,
    /// What went wrong in the page.
    pub(crate) errors: Vec<String>,
    _profile: tempfile::TempDir,
}

impl Page {
    /// Opens a page and waits for nothing.
    pub(crate) fn open(program: &std::path::Path, url: &str) -> Self {
        let profile = tempfile::tempdir().unwrap();
        let pipe = |name: &str| {
            let path = profile.path().join(name);
            assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
            path
        };
        let (input, output) = (pipe("in"), pipe("out"));
        // The shell opens descriptors 3 and 4, where Chromium looks for its pipes.
        let script = "exec \"$0\" --headless --no-sandbox --disable-gpu --disable-quic --no-first-run \
            --disable-background-networking --disable-component-update --disable-sync --disable-dev-shm-usage \
            --user-data-dir=\"$1\" --remote-debugging-pipe about:blank 3<\"$2\" 4>\"$3\"";
        let chromium = Command::new("sh")
            .args(["-c", script])
            .arg(program)
            .args([&profile.path().join("data"), &input, &output])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let to = OpenOptions::new().write(true).open(input).unwrap();
        let mut out = BufReader::new(File::open(output).unwrap());
        let (answers, from) = channel();
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            while out.read_until(0, &mut bytes).is_ok_and(|n| n > 0) {
                let message = serde_json::from_slice(bytes.strip_suffix(b"\0").unwrap_or(&bytes)).unwrap();
                if answers.send(message).is_err() {
                    return;
                }
                bytes.clear();
            }
        });
        let mut page = Self {
            chromium,
            to,
            from,
            session: Value::Null,
            serial: 0,
            errors: Vec::new(),
            _profile: profile,
        };
        let target = page.call("Target.createTarget", json!({"url": "about:blank"}));
        let attached = page.call(
            "Target.attachToTarget",
            json!({"targetId": target["targetId"], "flatten": true}),
        );
        page.session = attached["sessionId"].clone();
        for domain in ["Runtime.enable", "Log.enable", "Page.enable"] {
            page.call(domain, json!({}));
        }
        page.call("Page.navigate", json!({"url": url}));
        page
    }

    /// Sends a command and waits for its answer; what the page complains about meanwhile is kept.
    pub(crate) fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.serial += 1;
        let mut command = json!({"id": self.serial, "method": method, "params": parameters});
        if self.session.is_string() {
            command["sessionId"] = self.session.clone();
        }
        self.to.write_all(format!("{command}\0").as_bytes()).unwrap();
        loop {
            let message = self.from.recv_timeout(PATIENCE).expect("an answer of Chromium");
            self.note(&message);
            if message["id"] == self.serial {
                assert!(message["error"].is_null(), "{method}: {message}");
                return message["result"].clone();
            }
        }
    }

    fn note(&mut self, message: &Value) {
        let parameters = &message["params"];
        let wrong = match message["method"].as_str() {
            Some("Runtime.exceptionThrown") => true,
            Some("Runtime.consoleAPICalled") => parameters["type"] == "error",
            Some("Log.entryAdded") => parameters["entry"]["level"] == "error",
            _ => false,
        };
        if wrong {
            self.errors.push(parameters.to_string());
        }
    }

    /// What an expression is in the page.
    pub(crate) fn eval(&mut self, expression: &str) -> Value {
        let done = self.call(
            "Runtime.evaluate",
            json!({"expression": expression, "returnByValue": true}),
        );
        assert!(done["exceptionDetails"].is_null(), "{expression}: {done}");
        done["result"]["value"].clone()
    }

    /// Types into the field of the search.
    pub(crate) fn search(&mut self, text: &str) {
        self.eval(&format!(
            "(() => {{ const search = document.getElementById('search'); search.value = {}; \
             search.dispatchEvent(new Event('input', {{bubbles: true}})); }})()",
            Value::from(text)
        ));
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        let _ = self.chromium.kill();
        let _ = self.chromium.wait();
    }
}
