//! Files on a disk, and several of them at once.

use std::path::{Path, PathBuf};

use bellwire_config::{Loaded, Mode, Report, SystemEnv, load, load_many};

use crate::world::{BASE, World};

fn many(world: &World, names: &[&str]) -> Result<Loaded, Report> {
    let paths: Vec<PathBuf> = names.iter().map(|name| Path::new(BASE).join(name)).collect();
    load_many(&paths, Mode::Run, world)
}

#[test]
fn several_services_share_a_process() {
    let world = World::usual()
        .file("a.yaml", "service: a\nfunctions: { f: { command: ./f, events: [{ topic: t }] } }\n", false)
        .file(
            "b.yaml",
            "service: b\nlisten: { admin: 127.0.0.1:9 }\nsecurity: { allow_private_urls: [inner.example] }\n\
             functions: { g: { url: \"http://inner.example:80/\", request: { signing_secret: \"${file:secrets/own}\" }, \
             events: [{ topic: t }] } }\n",
            false,
        );
    let loaded = many(&world, &["a.yaml", "b.yaml"]).unwrap();
    assert_eq!(loaded.services.len(), 2);
    assert_eq!(loaded.controller.admin, "127.0.0.1:9");
    assert!(loaded.services[1].functions[0].request.allow_private);
    let files: Vec<_> =
        loaded.files.iter().map(|f| f.strip_prefix(BASE).unwrap().display().to_string()).collect();
    assert_eq!(files, ["a.yaml", "b.yaml", "secrets/own"]);
}

#[test]
fn several_files_must_agree() {
    let world = World::usual()
        .file("a.yaml", "service: a\nledger: sqlite:x.db\nfunctions: { f: { command: ./f, events: [{ topic: t }] } }\n", false)
        .file(
            "b.yaml",
            "service: a\nnamespace: other\nlimits: {}\nfunctions: { f: { command: ./f } }\nsources: { t: { topic: u } }\n",
            false,
        );
    let report = many(&world, &["a.yaml", "b.yaml"]).unwrap_err();
    let mut messages: Vec<_> =
        report.diagnostics.iter().map(|d| (d.line, d.message.replace(BASE, ""))).collect();
    messages.sort();
    assert_eq!(
        messages,
        [
            (1, "/a.yaml is the service `a` already".to_owned()),
            (2, "several namespaces in one controller are not supported yet: /a.yaml is in `default`".into()),
            (3, "`limits`: /a.yaml has a controller part already".into()),
            (4, "/a.yaml has a function `f` already".into()),
        ]
    );
}

#[test]
fn files_that_cannot_be_read_say_why() {
    let world = World::usual()
        .bytes("latin.yaml", b"service: a\n# caf\xe9\n".to_vec())
        .bytes("huge.yaml", vec![b'#'; 10 << 20])
        .file("bom.yaml", "\u{feff}service: a\n", false);
    let said = |name: &str| many(&world, &[name]).unwrap_err().diagnostics[0].message.clone();
    assert_eq!(said("absent.yaml"), "there is no such file");
    assert_eq!(said("latin.yaml"), "this file is not UTF-8 text: the first wrong byte is in line 2");
    assert_eq!(said("huge.yaml"), "this file is larger than 1 MB");
    assert!(many(&world, &["bom.yaml"]).is_ok());
}

#[test]
fn the_real_file_system_works_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bellwire.yaml");
    std::fs::write(&path, "service: a\nfunctions: { f: { handler: app/f.handler } }\n").unwrap();
    let report = load(&path, Mode::Run, &SystemEnv).unwrap_err();
    assert!(report.diagnostics[0].message.starts_with("the handler's file is not there"), "{report}");
    std::fs::create_dir(dir.path().join("app")).unwrap();
    std::fs::write(dir.path().join("app/f.py"), "").unwrap();
    let loaded = load(&path, Mode::Run, &SystemEnv).unwrap();
    assert_eq!(loaded.services[0].functions[0].code, dir.path().join("app"));
    let folder = load(dir.path(), Mode::Run, &SystemEnv).unwrap_err();
    assert!(folder.diagnostics[0].message.starts_with("this file cannot be read"), "{folder}");
}

#[cfg(unix)]
#[test]
fn a_secret_file_is_for_its_owner() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let (path, secret) = (dir.path().join("bellwire.yaml"), dir.path().join("secret"));
    let text = "service: a\nsecurity: { tokens: { t: { role: read, secret: \"${file:secret}\" } } }\n";
    std::fs::write(&path, text).unwrap();
    std::fs::write(&secret, "s3cret").unwrap();
    for (mode, right) in [(0o644, false), (0o640, true), (0o600, true)] {
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(load(&path, Mode::Run, &SystemEnv).is_ok(), right, "{mode:o}");
    }
}

#[test]
fn the_shipped_examples_are_right() {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples"));
    let mut read = 0;
    for example in std::fs::read_dir(root).unwrap() {
        let path = example.unwrap().path().join("bellwire.yaml");
        if path.is_file() {
            load(&path, Mode::Dev, &SystemEnv).unwrap_or_else(|report| panic!("{report}"));
            read += 1;
        }
    }
    assert!(read > 0);
}
