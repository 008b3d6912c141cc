//! Which controller a command talks to: flag, environment, `.bellwire/` of the nearest parent folder, default.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use reqwest::Url;
use serde::Deserialize;

use super::exit::Failure;

/// Where a controller listens when nobody says otherwise (`listen.admin`).
const DEFAULT_URL: &str = "http://127.0.0.1:7071";

/// An admin door and the token for it.
#[derive(Clone)]
pub struct Endpoint {
    /// Base URL without a slash at its end.
    pub url: String,
    /// Host and port, for messages.
    pub authority: String,
    /// Whether it is this machine.
    pub loopback: bool,
    /// The token, when one was found.
    pub token: Option<String>,
}

#[derive(Deserialize)]
struct ControllerFile {
    url: String,
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    pid: i32,
}

/// How many controllers of one folder are looked for.
const MOST: u16 = 64;

impl Endpoint {
    /// Finds the controller: `flag` > `BELLWIRE_URL`, `BELLWIRE_TOKEN` > the controller file nearest to `folder` >
    /// 127.0.0.1:7071. The file's token is sent nowhere but to the file's own URL.
    ///
    /// # Errors
    /// When the URL is none, or would carry a token unencrypted over a network.
    pub fn find(
        flag: Option<&str>,
        var: impl Fn(&str) -> Option<String>,
        folder: &Path,
    ) -> Result<Self, Failure> {
        let var = |name| var(name).filter(|value| !value.is_empty());
        let file = nearest(folder);
        let named = flag.map(String::from).or_else(|| var("BELLWIRE_URL"));
        let url =
            named.or_else(|| file.as_ref().map(|f| f.url.clone())).unwrap_or_else(|| DEFAULT_URL.into());
        let mut endpoint = Self::parse(&url)?;
        let of_file = file.filter(|f| f.url.trim_end_matches('/') == endpoint.url).and_then(|f| f.token);
        endpoint.token = var("BELLWIRE_TOKEN").or(of_file);
        Ok(endpoint)
    }

    /// A door whose token is known.
    ///
    /// # Errors
    /// As [`Endpoint::find`].
    pub fn with_token(url: &str, token: String) -> Result<Self, Failure> {
        Ok(Self { token: Some(token), ..Self::parse(url)? })
    }

    fn parse(text: &str) -> Result<Self, Failure> {
        let bad = |why: &str| Failure::usage(format!("`{text}` is no URL of a controller: {why}"));
        let url = Url::parse(text).map_err(|e| bad(&e.to_string()))?;
        let host = url.host_str().ok_or_else(|| bad("it names no host"))?;
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let loopback = bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        match url.scheme() {
            "https" => {}
            "http" if loopback => {}
            "http" => {
                let failure = bad("another machine needs https, else the token could be read on the way");
                return Err(failure.help("put a TLS proxy before it, or use an ssh tunnel to its loopback"));
            }
            other => return Err(bad(&format!("{other} is not spoken here, https is"))),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(bad("a token does not belong into it, it would show in process lists")
                .help("set BELLWIRE_TOKEN"));
        }
        let port = url.port().map(|p| format!(":{p}")).unwrap_or_default();
        Ok(Self {
            authority: format!("{host}{port}"),
            url: text.trim_end_matches('/').into(),
            loopback,
            token: None,
        })
    }
}

/// The controller file of the nearest parent folder that has one of our own: a file that somebody else put there
/// could lead the token away. Where several controllers run on the folder, the first one that lives.
fn nearest(folder: &Path) -> Option<ControllerFile> {
    folder.ancestors().find_map(|parent| {
        let state = parent.join(".bellwire");
        let first = read(&state.join("controller.json"))?;
        if first.is_alive() {
            return Some(first);
        }
        let others = (2..=MOST).map_while(|n| {
            let path = state.join(format!("controller-{n}.json"));
            path.exists().then(|| read(&path))
        });
        others.flatten().find(ControllerFile::is_alive).or(Some(first))
    })
}

fn read(path: &Path) -> Option<ControllerFile> {
    let me = rustix::process::geteuid().as_raw();
    fs::metadata(path).is_ok_and(|m| m.uid() == me).then_some(())?;
    serde_json::from_str(&fs::read_to_string(path).ok()?).ok()
}

impl ControllerFile {
    fn is_alive(&self) -> bool {
        rustix::process::Pid::from_raw(self.pid)
            .is_some_and(|pid| rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::exit::Exit;

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join(".bellwire")).unwrap();
        fs::create_dir_all(folder.path().join("deep/er")).unwrap();
        let text =
            r#"{"url":"http://127.0.0.1:4711","ingress":"http://127.0.0.1:4710","token":"bw_file","pid":1}"#;
        fs::write(folder.path().join(".bellwire/controller.json"), text).unwrap();
        folder
    }

    fn find(flag: Option<&str>, vars: &[(&str, &str)], folder: &Path) -> (String, Option<String>) {
        let var = |name: &str| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| String::from(*v));
        let found = Endpoint::find(flag, var, folder).unwrap();
        (found.url, found.token)
    }

    #[test]
    fn flag_beats_environment_beats_file_beats_default() {
        let folder = folder();
        let deep = folder.path().join("deep/er");
        let none = tempfile::tempdir().unwrap();
        assert_eq!(find(None, &[], none.path()), (DEFAULT_URL.into(), None));
        assert_eq!(find(None, &[], &deep), ("http://127.0.0.1:4711".into(), Some("bw_file".into())));
        let vars = [("BELLWIRE_URL", "https://bell.example/"), ("BELLWIRE_TOKEN", "bw_env")];
        assert_eq!(find(None, &vars, &deep), ("https://bell.example".into(), Some("bw_env".into())));
        assert_eq!(
            find(Some("http://[::1]:9"), &vars, &deep),
            ("http://[::1]:9".into(), Some("bw_env".into()))
        );
        assert_eq!(find(None, &[("BELLWIRE_URL", "")], &deep).0, "http://127.0.0.1:4711");
    }

    #[test]
    fn of_two_controllers_on_a_folder_the_one_that_lives_is_asked() {
        let folder = folder();
        let me = std::process::id();
        let second = format!(r#"{{"url":"http://127.0.0.1:4811","ingress":"","pid":{me}}}"#);
        fs::write(folder.path().join(".bellwire/controller-2.json"), second).unwrap();
        let gone = r#"{"url":"http://127.0.0.1:4711","ingress":"","pid":0}"#;
        assert_eq!(find(None, &[], folder.path()).0, "http://127.0.0.1:4711", "process 1 always lives");
        fs::write(folder.path().join(".bellwire/controller.json"), gone).unwrap();
        assert_eq!(find(None, &[], folder.path()).0, "http://127.0.0.1:4811");
    }

    #[test]
    fn the_file_token_goes_to_its_own_controller_only() {
        let folder = folder();
        assert_eq!(find(Some("https://other.example"), &[], folder.path()).1, None);
        assert_eq!(find(Some("http://127.0.0.1:4711/"), &[], folder.path()).1, Some("bw_file".into()));
    }

    #[test]
    fn a_token_never_travels_in_the_clear() {
        let none = tempfile::tempdir().unwrap();
        for bad in [
            "http://example.com",
            "ftp://127.0.0.1",
            "127.0.0.1:7071",
            "https://bw_x@host",
            "http://10.0.0.1:7071",
        ] {
            let failure = Endpoint::find(Some(bad), |_| None, none.path()).map(|e| e.url).unwrap_err();
            assert_eq!(failure.exit, Exit::Usage, "{bad}");
        }
    }
}
