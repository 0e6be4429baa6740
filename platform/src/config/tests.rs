use std::{io::Write as _, time::Duration};

use super::*;

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    http: Http,
    password: Secret,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Http {
    listen: String,
    limit: u32,
    strict: bool,
    origins: Vec<String>,
    #[serde(with = "duration")]
    timeout: Duration,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8080".to_owned(),
            limit: 10,
            strict: false,
            origins: Vec::new(),
            timeout: Duration::from_secs(30),
        }
    }
}

/// Keys and values.
type Pairs<'a> = &'a [(&'a str, &'a str)];

fn loaded(file: &str, environment: Pairs, flags: Pairs) -> Result<Settings, String> {
    let own = |pairs: Pairs| -> Vec<(String, String)> {
        pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
    };
    let mut written = tempfile::Builder::new().prefix("agora-").suffix(".toml").tempfile().expect("a file");
    written.write_all(file.as_bytes()).expect("room on the disk");
    load_from(Some(written.path()), "AGORA", own(environment), own(flags)).map_err(|error| {
        let folder = written.path().parent().expect("a folder").join("").display().to_string();
        error
            .to_string()
            .replace(&folder, "")
            .replace(&written.path().file_name().expect("a name").to_string_lossy().into_owned(), "agora.toml")
    })
}

#[test]
fn nothing_said_is_the_defaults() {
    assert_eq!(loaded("", &[], &[]), Ok(Settings::default()));
}

#[test]
fn file_then_environment_then_flags() {
    let file = "[http]\nlisten = \"a:1\"\nlimit = 1\nstrict = true\n";
    let environment = [("AGORA__HTTP__LISTEN", "b:2"), ("AGORA__HTTP__LIMIT", "2"), ("OTHER__HTTP__LIMIT", "9")];
    let settings = loaded(file, &environment, &[("http.listen", "c:3")]).expect("it is right");
    assert_eq!((settings.http.listen.as_str(), settings.http.limit, settings.http.strict), ("c:3", 2, true));
}

#[test]
fn lists_and_durations_come_from_the_environment_too() {
    let environment = [("AGORA__HTTP__ORIGINS", r#"["https://a", "https://b"]"#), ("AGORA__HTTP__TIMEOUT", "1m 30s")];
    let settings = loaded("", &environment, &[]).expect("it is right");
    assert_eq!(settings.http.origins, ["https://a", "https://b"]);
    assert_eq!(settings.http.timeout, Duration::from_secs(90));
}

#[test]
fn what_is_wrong_is_named_with_its_place() {
    let cases: [(&str, Pairs, Pairs, &str); 10] = [
        (
            "password = \"x\"\n\n[http]\nlsten = \"a:1\"\n",
            &[],
            &[],
            "configuration key `http.lsten` (agora.toml, line 4): unknown key `lsten`, expected one of `listen`, \
             `limit`, `strict`, `origins`, `timeout`",
        ),
        (
            "[http]\nlimit = \"many\"\n",
            &[],
            &[],
            "configuration key `http.limit` (agora.toml, line 2): invalid type: string \"many\", expected an integer",
        ),
        (
            "[htpp]\nlimit = 1\n",
            &[],
            &[],
            "configuration key `htpp` (agora.toml, line 1): unknown key `htpp`, expected `http` or `password`",
        ),
        (
            "",
            &[("AGORA__HTTP__LSTEN", "a:1")],
            &[],
            "configuration key `http.lsten` (environment variable AGORA__HTTP__LSTEN): unknown key `lsten`, expected \
             one of `listen`, `limit`, `strict`, `origins`, `timeout`",
        ),
        (
            "",
            &[("AGORA__HTP__LISTEN", "a:1")],
            &[],
            "configuration key `htp` (environment variable AGORA__HTP__LISTEN): unknown key `htp`, expected `http` or \
             `password`",
        ),
        (
            "",
            &[("AGORA__HTTP__STRICT", "perhaps")],
            &[],
            "configuration key `http.strict` (environment variable AGORA__HTTP__STRICT): invalid type: string \
             \"perhaps\", expected a boolean",
        ),
        (
            "",
            &[("AGORA__HTTP", "x")],
            &[],
            "configuration key `http` (environment variable AGORA__HTTP): invalid type: string \"x\", expected struct \
             Http",
        ),
        (
            "",
            &[("AGORA__HTTP____LIMIT", "1")],
            &[],
            "configuration key `http..limit` (environment variable AGORA__HTTP____LIMIT): is not the name of a key",
        ),
        (
            "",
            &[],
            &[("http.timeout", "soon")],
            "configuration key `http.timeout` (command line): \"soon\" is no duration like \"15m\" or \"2s\": expected \
             number at 0",
        ),
        (
            "[http]\norigins = [\"a\", 1]\nlimit = -1\n",
            &[],
            &[],
            "configuration key `http.limit` (agora.toml, line 3): invalid type: 64-bit integer `-1`, expected an \
             unsigned 64 bit or less integer",
        ),
    ];
    for (file, environment, flags, message) in cases {
        assert_eq!(loaded(file, environment, flags), Err(message.to_owned()));
    }
}

#[test]
fn a_file_that_is_not_toml_is_refused_with_line_and_column() {
    let message = loaded("[http\nlimit = 1", &[], &[]).expect_err("it is broken");
    assert!(message.starts_with("agora.toml is not valid TOML: "), "{message}");
    assert!(message.contains("line 1, column 6"), "{message}");
}

#[test]
fn a_file_that_is_named_must_be_there() {
    let error = load_from::<Settings>(Some(Path::new("/nowhere/agora.toml")), "AGORA", [], vec![]);
    let message = error.expect_err("there is none").to_string();
    assert!(message.starts_with("cannot read the configuration file /nowhere/agora.toml: "), "{message}");
}

#[test]
fn secrets_never_show() {
    let settings = loaded("password = \"hunter2\"", &[], &[]).expect("it is right");
    assert_eq!(settings.password.expose(), "hunter2");
    let rendered = render(&settings).expect("it is TOML");
    assert!(rendered.contains("password = \"***\""), "{rendered}");
    assert!(rendered.contains("timeout = \"30s\""), "{rendered}");
    assert!(!format!("{settings:?}{rendered}").contains("hunter2"));
}

#[test]
fn of_a_url_only_what_is_secret_is_hidden() {
    for (url, seen) in [
        ("", ""),
        ("hunter2", "***"),
        ("postgres://ada:hunter2@db:5432/forum", "postgres://ada:***@db:5432/forum"),
        ("postgres://ada:hunt@er2@db/forum?password=x", "postgres://ada:***@db/forum?***"),
        ("postgres://ada@db/forum", "postgres://ada@db/forum"),
        ("postgres:///forum?host=/run", "postgres:///forum?***"),
    ] {
        assert_eq!(shown(url), seen);
    }
}

#[test]
fn a_variable_is_named_by_its_key() {
    assert_eq!(variable("AGORA", "http.header_timeout"), "AGORA__HTTP__HEADER_TIMEOUT");
}
