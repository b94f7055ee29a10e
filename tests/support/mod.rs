//! A real `router serve` in a process of its own, on a configuration folder that the test owns.
#![allow(dead_code, reason = "each test binary uses its part")]

pub(crate) mod provider;
pub(crate) mod volume;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value as Json;
use tokio::sync::watch;

/// Longer than anything here takes on a loaded machine; reaching it is a failure, never a way to wait.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A configuration folder with its store, in a temporary place.
pub(crate) struct Folder {
    dir: tempfile::TempDir,
}

impl Folder {
    /// Writes `router.yaml` (with ports chosen by the system and the store in the folder) and the given files.
    /// `server` are further keys of `router.yaml`.
    pub(crate) fn new(server: &str, files: &[(&str, &str)]) -> Self {
        let folder = Self { dir: tempfile::tempdir().expect("a temporary folder") };
        folder.write(
            "router.yaml",
            &format!(
                "listen: 127.0.0.1:0\nadmin: {{ listen: 127.0.0.1:0 }}\nstore: ./data\n{server}\n"
            ),
        );
        for (name, text) in files {
            folder.write(name, text);
        }
        folder
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().expect("a file has a folder"))
            .expect("the folder is writable");
        fs::write(path, text).expect("the folder is writable");
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.path().join("data")
    }
}

/// A running `router serve`. Dropping it kills it.
pub(crate) struct Router {
    child: Child,
    pub(crate) ingress: SocketAddr,
    pub(crate) admin: SocketAddr,
    reader: Option<JoinHandle<()>>,
    /// The lines logged so far.
    log: watch::Receiver<Vec<String>>,
    /// Made once: making one takes longer than most answers.
    api: reqwest::Client,
}

impl Router {
    /// Starts it on `folder` and returns once it has logged that it is `listening`.
    pub(crate) fn start(folder: &Folder, env: &[(&str, &str)]) -> Self {
        Self::start_by(Command::new(env!("CARGO_BIN_EXE_router")), folder, env)
    }

    /// The same, with a command that wraps the binary (a limit of file sizes, say).
    pub(crate) fn start_by(command: Command, folder: &Folder, env: &[(&str, &str)]) -> Self {
        let mut child = serve(command, folder, env);
        let stderr = BufReader::new(child.stderr.take().expect("it was piped"));
        let (found, listening) = mpsc::channel();
        let (said, log) = watch::channel(Vec::new());
        let reader = std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if let Some(addresses) = addresses(&line) {
                    // The receiver goes once it has what it needs.
                    found.send(addresses).ok();
                }
                said.send_modify(|lines| lines.push(line));
            }
        });
        match listening.recv_timeout(PATIENCE) {
            Ok((ingress, admin)) => {
                Self { child, ingress, admin, reader: Some(reader), log, api: client() }
            }
            Err(_) => {
                drop(child.kill());
                drop(child.wait());
                reader.join().expect("the log reader does not panic");
                panic!("the router did not come up; it said:\n{}", log.borrow().join("\n"));
            }
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL, and waits for the end. Answers what it had logged.
    pub(crate) fn kill(mut self) -> Vec<String> {
        self.child.kill().expect("it is our child");
        self.child.wait().expect("it is our child");
        self.read_log()
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("it is our child");
    }

    /// SIGTERM, and waits for the end.
    pub(crate) fn stop(mut self) -> (ExitStatus, Vec<String>) {
        self.signal(rustix::process::Signal::TERM);
        self.wait_mut()
    }

    /// Waits until it ends by itself.
    pub(crate) fn wait(mut self) -> (ExitStatus, Vec<String>) {
        self.wait_mut()
    }

    fn wait_mut(&mut self) -> (ExitStatus, Vec<String>) {
        let status = self.child.wait().expect("it is our child");
        (status, self.read_log())
    }

    fn read_log(&mut self) -> Vec<String> {
        if let Some(reader) = self.reader.take() {
            reader.join().expect("the log reader does not panic");
        }
        self.log.borrow().clone()
    }

    /// Resolves once a logged line holds `text`.
    #[expect(clippy::disallowed_methods, reason = "a bound on a wait for a real process")]
    pub(crate) async fn wait_for_log(&self, text: &str) {
        let mut log = self.log.clone();
        let said = log.wait_for(|lines| lines.iter().any(|line| line.contains(text)));
        match tokio::time::timeout(PATIENCE, said).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => panic!("the router never said `{text}`"),
        }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.ingress)
    }

    /// `GET /api/v1/events/{id}`; `None` while it is not known.
    pub(crate) async fn event(&self, id: &str) -> Option<Json> {
        let answer = self
            .api
            .get(format!("http://{}/api/v1/events/{id}", self.admin))
            .send()
            .await
            .expect("it answers");
        if answer.status() == 404 {
            return None;
        }
        assert_eq!(answer.status(), 200);
        Some(serde_json::from_slice(&answer.bytes().await.expect("a whole answer")).expect("JSON"))
    }

    #[expect(clippy::disallowed_methods, reason = "a bound on a wait for a real process")]
    /// The event once its status is `status`. The API has no push, so this asks again, without a pause, until it is.
    pub(crate) async fn event_when(&self, id: &str, status: &str) -> Json {
        let asked = async {
            loop {
                if let Some(event) = self.event(id).await
                    && event["processing"]["status"] == status
                {
                    return event;
                }
                tokio::task::yield_now().await;
            }
        };
        match tokio::time::timeout(PATIENCE, asked).await {
            Ok(event) => event,
            Err(_) => panic!("{id} did not become {status}: {:#?}", self.event(id).await),
        }
    }

    /// The text of `/metrics`.
    pub(crate) async fn metrics(&self) -> String {
        let answer = self
            .api
            .get(format!("http://{}/metrics", self.admin))
            .send()
            .await
            .expect("it answers");
        answer.text().await.expect("text")
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to kill.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Runs `router serve` where it must not come up. Answers its end and what it said.
pub(crate) fn refused(
    command: Command,
    folder: &Folder,
    env: &[(&str, &str)],
) -> (ExitStatus, String) {
    let mut child = serve(command, folder, env);
    let mut stderr = child.stderr.take().expect("it was piped");
    let (said, ended) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        stderr.read_to_string(&mut text).expect("UTF-8");
        said.send(text).ok();
    });
    let text = ended.recv_timeout(PATIENCE);
    if text.is_err() {
        drop(child.kill());
    }
    let status = child.wait().expect("it is our child");
    reader.join().expect("the reader does not panic");
    (status, text.expect("the router came up, or hangs"))
}

fn serve(mut command: Command, folder: &Folder, env: &[(&str, &str)]) -> Child {
    command
        .args(["-C", folder.path().to_str().expect("a UTF-8 path")])
        .args(["--log-format", "json", "serve"])
        .envs(env.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the router starts")
}

/// The addresses of the log line `listening`.
fn addresses(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    let line: Json = serde_json::from_str(line).ok()?;
    let fields = if line["fields"].is_object() { &line["fields"] } else { &line };
    if fields["message"] != "listening" {
        return None;
    }
    let address = |name: &str| fields[name].as_str()?.parse().ok();
    Some((address("ingress")?, address("admin")?))
}

/// A client that follows nothing and knows no proxy.
pub(crate) fn client() -> reqwest::Client {
    // The provider is the process's; whoever comes second finds it installed.
    drop(rustls::crypto::ring::default_provider().install_default());
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .expect("a client")
}
