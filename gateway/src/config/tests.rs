use std::{fs, time::Duration};

use super::*;

const HOME: (&str, &str) = ("HOME", "/home/someone");

fn sources(file: Option<&str>, environment: &[(&str, &str)]) -> (tempfile::TempDir, Sources) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = file.map(|text| {
        let path = dir.path().join("headgate.toml");
        fs::write(&path, text).expect("written");
        path
    });
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let sources = Sources {
        file: path,
        environment: environment.iter().chain([&HOME]).map(owned).collect(),
        data_dir: None,
    };
    (dir, sources)
}

fn load(file: &str, environment: &[(&str, &str)]) -> Config {
    let (_dir, sources) = sources(Some(file), environment);
    Config::load(&sources).expect("valid").config
}

/// Every problem, with the file's directory left out.
fn problems(file: &str, environment: &[(&str, &str)]) -> Vec<String> {
    let (dir, sources) = sources(Some(file), environment);
    let error = Config::load(&sources).expect_err("invalid").to_string();
    let prefix = format!("{}/", dir.path().display());
    error
        .replace(&prefix, "")
        .lines()
        .map(str::to_owned)
        .collect()
}

#[test]
fn works_with_nothing_at_all() {
    let (_dir, sources) = sources(None, &[]);
    let loaded = Config::load(&sources).expect("valid");
    assert_eq!(
        loaded.config,
        Config::embedded("/home/someone/.local/state/headgate")
    );
}

#[test]
fn the_data_directory_follows_the_user() {
    let cases: [(&[(&str, &str)], &str); 4] = [
        (&[("XDG_STATE_HOME", "/state")], "/state/headgate"),
        (
            &[("XDG_STATE_HOME", "relative")],
            "/home/someone/.local/state/headgate",
        ),
        (
            &[("XDG_STATE_HOME", "")],
            "/home/someone/.local/state/headgate",
        ),
        (&[("HEADGATE__DATA_DIR", "/srv/hg")], "/srv/hg"),
    ];
    for (environment, expected) in cases {
        assert_eq!(load("", environment).data_dir, Path::new(expected));
    }
    let nowhere = Sources::default();
    let error = Config::load(&nowhere).expect_err("no home").to_string();
    assert_eq!(
        error,
        "default: data_dir: no home directory is known: give --data-dir"
    );
}

#[test]
fn flag_over_environment_over_file_over_default() {
    let file = "data_dir = \"/file\"\n[mqtt]\nmax_connections = 5000\nbacklog = 7\n";
    let environment = [
        ("HEADGATE__DATA_DIR", "/environment"),
        ("HEADGATE__MQTT__MAX_CONNECTIONS", "6000"),
    ];
    let (_dir, mut sources) = sources(Some(file), &environment);
    sources.data_dir = Some(PathBuf::from("/flag"));
    let loaded = Config::load(&sources).expect("valid");
    assert_eq!(loaded.config.data_dir, Path::new("/flag"));
    assert_eq!(loaded.config.mqtt.max_connections, 6000);
    assert_eq!(loaded.config.mqtt.backlog, 7);
    assert_eq!(loaded.config.mqtt.max_handshakes, 256);
    let printed = loaded.print();
    for line in [
        "data_dir = \"/flag\" # --data-dir",
        "max_connections = 6000 # HEADGATE__MQTT__MAX_CONNECTIONS",
        "max_handshakes = 256 # default",
    ] {
        assert!(printed.lines().any(|known| known == line), "{printed}");
    }
    assert!(printed.contains("backlog = 7 # /"), "{printed}");
    assert!(printed.contains("/headgate.toml:4\n"), "{printed}");
}

#[test]
fn values_of_the_environment_take_the_type_of_their_key() {
    let config = load(
        "",
        &[
            ("HEADGATE__MQTT__LISTEN", "[::1]:0"),
            ("HEADGATE__FILES__LISTEN", "off"),
            ("HEADGATE__DELIVERY__CHUNK_CACHE_BYTES", "64 MiB"),
            ("HEADGATE__DELIVERY__WINDOW_BYTES", "65536"),
            ("HEADGATE__MQTT__HANDSHAKE_TIMEOUT", "1min 30s"),
            ("HEADGATE__LOG__FORMAT", "json"),
            ("HEADGATE__TLS__CERTIFICATE", "/c.pem"),
            ("HEADGATE__TLS__KEY", "/k.pem"),
            ("HEADGATE_CONFIG", "ignored here"),
        ],
    );
    assert_eq!(config.mqtt.listen, "[::1]:0".parse().ok());
    assert_eq!(config.files.listen, None);
    assert_eq!(config.delivery.chunk_cache_bytes, 64 << 20);
    assert_eq!(config.delivery.window_bytes, 65_536);
    assert_eq!(config.mqtt.handshake_timeout, Duration::from_secs(90));
    assert_eq!(config.log.format, LogFormat::Json);
    assert_eq!(config.tls.certificate, Some(PathBuf::from("/c.pem")));
}

#[test]
fn all_problems_are_told_at_once_and_where_they_stand() {
    let file = "\
data_dri = \"/x\"

[mqtt]
listen = \"8883\"
max_conections = 5
max_topic_levels = 1.5
handshake_timeout = 10

[mqt]
listen = \"0.0.0.0:1\"

[log]
level = \"inof\"
format = \"xml\"

[delivery]
max_keep_alive = 5
window_bytes = \"8 KiB\"
";
    let environment = [
        ("HEADGATE__MQTT__MAX_CONNECTION", "1"),
        ("HEADGATE__HTTP__LISTEN", "localhost:80"),
        ("HEADGATE__QQQQ__ZZZZ", "1"),
    ];
    assert_eq!(
        problems(file, &environment),
        [
            "headgate.toml:1: unknown key data_dri, did you mean data_dir?",
            "headgate.toml:4: mqtt.listen: expected an address with a port such as \"127.0.0.1:8080\", not \"8883\"",
            "headgate.toml:5: unknown key mqtt.max_conections, did you mean mqtt.max_connections?",
            "headgate.toml:6: mqtt.max_topic_levels: expected a whole number, 2 to 128, not a fraction",
            "headgate.toml:7: mqtt.handshake_timeout: expected a duration such as \"10s\", 100ms to 5min, not 10",
            "headgate.toml:9: unknown section [mqt], did you mean mqtt?",
            "headgate.toml:13: log.level: expected off, error, warn, info, debug, trace; more after a comma: module=level, not \"inof\"",
            "headgate.toml:14: log.format: expected one of auto, json, pretty, not \"xml\"",
            "headgate.toml:17: unknown key delivery.max_keep_alive, did you mean mqtt.max_keep_alive?",
            "headgate.toml:18: delivery.window_bytes: expected a size such as \"256 KiB\", 16 KiB to 16 MiB, not \"8 KiB\"",
            "HEADGATE__HTTP__LISTEN: http.listen: expected an address with a port such as \"127.0.0.1:8080\", not \"localhost:80\"",
            "HEADGATE__MQTT__MAX_CONNECTION: names no key, did you mean HEADGATE__MQTT__MAX_CONNECTIONS?",
            "HEADGATE__QQQQ__ZZZZ: names no key",
        ]
    );
}

#[test]
fn a_key_that_is_like_none_gets_no_hint() {
    assert_eq!(
        problems("[delivery]\nzzz = 1\n[zzz]\n", &[]),
        [
            "headgate.toml:2: unknown key delivery.zzz",
            "headgate.toml:3: unknown section [zzz]",
        ]
    );
}

#[test]
fn broken_toml_is_told_with_its_line() {
    let told = problems("[mqtt]\nbacklog = = 7\nlisten = \"x\"\n", &[]);
    assert!(told[0].starts_with("headgate.toml:2: "), "{told:?}");
    assert!(
        told.iter().any(|line| line.contains("mqtt.listen")),
        "{told:?}"
    );
    let told = problems("[mqtt]\nbacklog = 7\nbacklog = 8\n", &[]);
    assert!(told[0].starts_with("headgate.toml:3: "), "{told:?}");
}

#[test]
fn a_named_file_must_exist() {
    let sources = Sources {
        file: Some(PathBuf::from("/nowhere/headgate.toml")),
        ..Sources::default()
    };
    let error = Config::load(&sources).expect_err("missing").to_string();
    assert!(error.starts_with("/nowhere/headgate.toml: "), "{error}");
}

#[test]
fn what_contradicts_itself_is_refused() {
    let cases = [
        (
            "[tls]\ncertificate = \"/c\"",
            "headgate.toml:2: tls.certificate: given without tls.key",
        ),
        (
            "[http]\nlisten = \"127.0.0.1:8883\"",
            "headgate.toml:2: http.listen: 127.0.0.1:8883 is taken by mqtt.listen (0.0.0.0:8883)",
        ),
        (
            "[mqtt]\nlisten = \"off\"",
            "headgate.toml:2: mqtt.listen: no device could connect: mqtt.plain_listen is off as well",
        ),
        (
            "[delivery]\nchunk_bytes = \"128 KiB\"\nwindow_bytes = \"64 KiB\"",
            "headgate.toml:3: delivery.window_bytes: must hold at least one chunk (delivery.chunk_bytes)",
        ),
        (
            "[applications]\nstream_keep_alive = \"1min\"",
            "headgate.toml:2: applications.stream_keep_alive: must be below http.body_idle_timeout, which ends a stream without bytes",
        ),
        (
            "mqtt = 1883",
            "headgate.toml:1: mqtt is a section: write [mqtt] and its keys below",
        ),
    ];
    for (file, expected) in cases {
        assert_eq!(problems(file, &[]), [expected]);
    }
    load(
        "[mqtt]\nlisten = \"127.0.0.1:0\"\n[http]\nlisten = \"127.0.0.1:0\"",
        &[],
    );
}

#[test]
fn listeners_are_tables_and_keep_their_order() {
    let file = "\
[mqtt]
listen = \"off\"

[[mqtt.listener]]
address = \"127.0.0.1:8884\"
certificate = \"/c.pem\"
key = \"/k.pem\"
proxy_protocol = [\"10.0.0.0/8\", \"192.0.2.7\"]

[[mqtt.listener]]
address = \"127.0.0.1:8083\"
tls = false
transport = \"websocket\"

[[mqtt.listener]]
address = \"[::1]:1884\"
profile = \"conformance\"
";
    let environment = [
        ("HEADGATE__MQTT__LISTENER__1__ADDRESS", "127.0.0.1:8085"),
        ("HEADGATE__MQTT__LISTENER__3__ADDRESS", "127.0.0.1:8086"),
        ("HEADGATE__MQTT__LISTENER__3__PROXY_PROTOCOL", "::1, ::2"),
    ];
    let listeners = load(file, &environment).listeners;
    let addresses: Vec<_> = listeners
        .iter()
        .filter_map(|listener| Some(listener.address?.to_string()))
        .collect();
    assert_eq!(
        addresses,
        [
            "127.0.0.1:8884",
            "127.0.0.1:8085",
            "[::1]:1884",
            "127.0.0.1:8086"
        ]
    );
    assert!(listeners[0].tls && !listeners[1].tls);
    assert_eq!(listeners[0].proxy_protocol.len(), 2);
    assert_eq!(listeners[1].transport, Transport::WebSocket);
    assert_eq!(listeners[2].profile, Profile::Conformance);
    assert_eq!(listeners[3].proxy_protocol.len(), 2);

    let (_dir, sources) = sources(Some(file), &environment);
    let printed = Config::load(&sources).expect("valid").print();
    assert_eq!(load(&printed, &[]).listeners, listeners, "{printed}");
}

#[test]
fn a_listener_that_cannot_be_served_as_it_is_written_is_refused() {
    let table = |lines: &str| format!("[[mqtt.listener]]\n{lines}");
    let cases = [
        (
            "",
            "headgate.toml:1: mqtt.listener.0: a listener needs an address",
        ),
        (
            "address = \"0.0.0.0:1\"\nprofile = \"conformance\"",
            "headgate.toml:3: mqtt.listener.0.profile: conformance lets anyone in: it needs a loopback address such as 127.0.0.1",
        ),
        (
            "address = \"127.0.0.1:1\"\nprofile = \"conformance\"\nproxy_protocol = [\"::1\"]",
            "headgate.toml:3: mqtt.listener.0.profile: conformance takes no connections of others: leave proxy_protocol out",
        ),
        (
            "address = \"127.0.0.1:1\"\ncertificate = \"/c\"",
            "headgate.toml:3: mqtt.listener.0.certificate: given without mqtt.listener.0.key",
        ),
        (
            "address = \"127.0.0.1:1\"\ntls = false\ncertificate = \"/c\"\nkey = \"/k\"",
            "headgate.toml:4: mqtt.listener.0.certificate: of no use where tls is false",
        ),
        (
            "address = \"127.0.0.1:8080\"",
            "headgate.toml:2: mqtt.listener.0.address: 127.0.0.1:8080 is taken by http.listen (127.0.0.1:8080)",
        ),
        (
            "adress = \"127.0.0.1:1\"\naddress = \"127.0.0.1:2\"",
            "headgate.toml:2: unknown key mqtt.listener.adress, did you mean mqtt.listener.address?",
        ),
        (
            "address = \"127.0.0.1:2\"\nproxy_protocol = [\"10.0.0.0/99\"]",
            "headgate.toml:3: mqtt.listener.0.proxy_protocol: expected networks such as [\"10.0.0.0/8\", \"192.0.2.7\"], not a list",
        ),
    ];
    for (lines, expected) in cases {
        assert_eq!(problems(&table(lines), &[]), [expected]);
    }
    assert_eq!(
        problems("[mqtt]\nlistener = 5", &[]),
        ["headgate.toml:2: mqtt.listener: expected tables, each below its own [[mqtt.listener]]"]
    );
    // The suites' listener is none for devices.
    let only = "[mqtt]\nlisten = \"off\"\n[[mqtt.listener]]\naddress = \"127.0.0.1:1\"\nprofile = \"conformance\"";
    assert_eq!(
        problems(only, &[]),
        ["headgate.toml:2: mqtt.listen: no device could connect: mqtt.plain_listen is off as well"]
    );
}

#[test]
fn a_registry_may_be_elsewhere_and_what_several_nodes_need_is_refused_in_a_sentence() {
    let url = "postgres://user:hunter2@db/headgate";
    let config = load(&format!("[registry]\nurl = \"{url}\"\n"), &[]);
    assert_eq!(config.registry.url.as_ref().map(Secret::expose), Some(url));
    let file = "[blobs]\nurl = \"s3://bucket/gateway\"\nendpoint = \"https://s3.example\"\n";
    assert_eq!(
        load(file, &[]).blobs.endpoint.as_deref(),
        Some("https://s3.example")
    );
    let file = "[sessions]\nurl = \"redis://:hunter2@cache\"\n[blobs]\nurl = \"s3://Bucket\"\naccess_key_id = \"k\"\n";
    let told = problems(file, &[]);
    assert_eq!(
        told,
        [
            "headgate.toml:2: sessions.url: redis:// needs registry.url to be postgres://: what nodes share \
             they share all of",
            "headgate.toml:4: blobs.url: expected s3://bucket/prefix",
            "headgate.toml:5: blobs.access_key_id: given without blobs.secret_access_key",
        ]
    );
    assert_eq!(
        problems("[blobs]\nendpoint = \"https://s3.example\"\n", &[]),
        ["headgate.toml:2: blobs.endpoint: of no use unless blobs.url is s3://"]
    );
    assert_eq!(
        problems("[registry]\nurl = \"mysql://u:hunter2@db/x\"\n", &[]),
        [
            "headgate.toml:2: registry.url: expected sqlite:/// and an absolute path, or postgres://user@host/database"
        ]
    );
}

#[test]
fn a_secret_can_stand_in_a_file_and_is_never_shown() {
    let dir = tempfile::tempdir().expect("a directory");
    let secret = dir.path().join("url");
    fs::write(&secret, "sqlite:///srv/hunter2.db\n").expect("written");
    let file = format!(
        "[registry]\nurl_file = {:?}\n",
        secret.display().to_string()
    );
    let (_dir, sources) = sources(Some(&file), &[]);
    let loaded = Config::load(&sources).expect("valid");
    let url = loaded.config.registry.url.as_ref().map(Secret::expose);
    assert_eq!(url, Some("sqlite:///srv/hunter2.db"));
    assert!(!loaded.print().contains("hunter2"));
    assert!(!format!("{:?}", loaded.config).contains("hunter2"));
    assert!(loaded.print().contains("url = \"<redacted>\" # /"));

    let both = format!("{file}url = \"sqlite:///srv/other.db\"\n");
    assert_eq!(
        problems(&both, &[]),
        [
            "headgate.toml:2: registry.url_file: give either registry.url or registry.url_file, not both"
        ]
    );
    let over = [("HEADGATE__REGISTRY__URL", "sqlite:///srv/other.db")];
    let url = load(&file, &over).registry.url.expect("given");
    assert_eq!(url.expose(), "sqlite:///srv/other.db");
    let missing = problems("[registry]\nurl_file = \"/nowhere/x\"\n", &[]);
    assert!(
        missing[0].contains("registry.url_file: /nowhere/x: "),
        "{missing:?}"
    );
}

/// The documented file is made from the sections: `UPDATE_EXAMPLE=1` writes it anew.
#[test]
fn the_documented_file_is_the_defaults() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/headgate.example.toml");
    if std::env::var_os("UPDATE_EXAMPLE").is_some() {
        fs::write(&path, example()).expect("written");
    }
    let text = fs::read_to_string(&path).expect("it is there");
    assert!(
        text == example(),
        "deploy/headgate.example.toml is old: run this test with UPDATE_EXAMPLE=1"
    );

    let defaults = Config::embedded("/var/lib/headgate");
    let environment = [("HEADGATE__DATA_DIR", "/var/lib/headgate")];
    assert_eq!(load(&text, &environment), defaults);
    // Every key of it, taken at its word: comments have a blank behind the mark, keys have none.
    let keys: Vec<_> = text
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(key) if !key.is_empty() && !key.starts_with(' ') => key,
            _ => line,
        })
        .collect();
    assert_eq!(load(&keys.join("\n"), &[]), defaults);
}

#[test]
fn what_is_printed_can_be_read_again() {
    let config = load(
        "[mqtt]\nhandshake_timeout = \"1500ms\"\n[files]\npublic_url = \"https://f.example\"\n",
        &[],
    );
    let (_dir, sources) = sources(None, &[("HEADGATE__MQTT__BACKLOG", "9")]);
    let printed = Config::load(&sources).expect("valid").print();
    assert_eq!(load(&printed, &[]).mqtt.backlog, 9);
    assert_eq!(config.mqtt.handshake_timeout, Duration::from_millis(1500));
}
