//! What devices really sent, and what they must not get in with.

use super::*;

/// 2026-11-21T05:30:00Z.
const NOW: u64 = 1_795_239_000;
const HOUR: Duration = Duration::from_hours(1);

const HUAWEI_SECRET: &[u8] = b"12345678";
const HUAWEI_PASSWORD: &str = "1ec5160485c7f8270f91fd06de9e8c6ae92e25a3effed086d5e64622697865a3";
const TENCENT_SECRET: &[u8] = b"MDEyMzQ1Njc4OWFiY2RlZg==";
const PYTHON_USER: &str = "PROD123456dev1;21010406;9DXch;1795240549864";
const PYTHON_PASSWORD: &str = "4a06bba38a5fc619b7704a7efb9ff91fae0987ba;hmacsha1";

/// Whether these fields prove this secret, or why they prove none.
fn outcome(
    client_id: &str,
    username: &str,
    password: impl AsRef<[u8]>,
    secret: &[u8],
) -> Result<bool, Unproven> {
    let claim = Claim::read(client_id, Some(username), Some(password.as_ref()));
    Ok(claim.proof(NOW, HOUR)?.is_of(secret))
}

#[test]
fn the_form_is_recognised_by_its_shape() {
    use Form::{Application, Huawei, Native, Tencent};
    for (client_id, username, form, identity) in [
        ("c1", Some("p_d"), Native, "p_d"),
        ("c1", None, Native, "c1"),
        ("c1", Some(""), Native, "c1"),
        ("", Some("p_d"), Native, "p_d"),
        ("thing1", Some("?SDK=X&V=1"), Native, "thing1"),
        ("c1", Some("thing1?SDK=X"), Native, "thing1"),
        ("p_d_0_0_2025020219", Some("p_d"), Huawei, "p_d"),
        ("p_d_0_1_2025020219", Some("p_d"), Huawei, "p_d"),
        ("p_d_0_1_2025020219", Some("p_d?SDK=X"), Huawei, "p_d"),
        // A device id may look like one with a stamp: only the username says where it ends.
        (
            "a_0_1_2025020219_0_0_2025020219",
            Some("a_0_1_2025020219"),
            Huawei,
            "a_0_1_2025020219",
        ),
        ("p_d_0_2_2025020219", Some("p_d"), Native, "p_d"),
        ("p_d_1_1_2025020219", Some("p_d"), Native, "p_d"),
        ("p_d_0_1_202502021", Some("p_d"), Native, "p_d"),
        ("p_d_0_1_20250202190", Some("p_d"), Native, "p_d"),
        ("p_d_0_1_202502021x", Some("p_d"), Native, "p_d"),
        ("_0_1_2025020219", None, Native, "_0_1_2025020219"),
        ("x_0_1_2025020219", Some("p_d"), Native, "p_d"),
        (
            "PROD123456dev1",
            Some(PYTHON_USER),
            Tencent,
            "PROD123456dev1",
        ),
        ("PROD123456dev2", Some(PYTHON_USER), Native, PYTHON_USER),
        (
            "PROD123456dev1",
            Some("PROD123456dev1;1;2"),
            Native,
            "PROD123456dev1;1;2",
        ),
        (
            "PROD123456dev1",
            Some("PROD123456dev1;1;2;3;4"),
            Native,
            "PROD123456dev1;1;2;3;4",
        ),
        ("", Some(";1;2;3"), Native, ";1;2;3"),
        ("app:billing", Some("billing"), Application, "billing"),
        ("app:billing:west", Some("billing"), Application, "billing"),
        ("app:billing", Some("p_d"), Native, "p_d"),
        ("app:billing", None, Native, "app:billing"),
    ] {
        let claim = Claim::read(client_id, username, None);
        assert_eq!(
            (claim.form, claim.identity),
            (form, identity),
            "{client_id} {username:?}"
        );
    }
}

#[test]
fn what_the_vendors_devices_sent_is_taken() {
    for (client_id, username, password, secret) in [
        ("any", "p_d", "s3cret", &b"s3cret"[..]),
        // Huawei's documents, and its Python SDK with the hour checked.
        (
            "p_d_0_0_2025020219",
            "p_d",
            "4038200abc52f097d1b8dd909e7e4ba29fa22cd9510c9d68590fab4e001c57bd",
            HUAWEI_SECRET,
        ),
        (
            "prodX_node1_0_1_2026112105",
            "prodX_node1",
            HUAWEI_PASSWORD,
            HUAWEI_SECRET,
        ),
        // Tencent's Python SDK, whose end is in milliseconds, and its C SDK, whose end is LONG_MAX cut to 17 digits.
        (
            "PROD123456dev1",
            PYTHON_USER,
            PYTHON_PASSWORD,
            TENCENT_SECRET,
        ),
        (
            "PROD123456dev1",
            "PROD123456dev1;21010406;e9kH0;92233720368547758",
            "7a23522108c84426d26921702a77d6890fe94a54;hmacsha1",
            TENCENT_SECRET,
        ),
        (
            "PROD123456dev1",
            "PROD123456dev1;21010406;abcde;9223372036854775807",
            "329d3db98d3214458de109da4d598a1d91b401e141d5b8dab8d76fc206790fa6;hmacsha256",
            TENCENT_SECRET,
        ),
        (
            "PROD123456dev1",
            "PROD123456dev1;21010406;abcde;1795240549",
            "d3e475970ec6d8e876534b4443607c1f020acdc3f963590c86fa0ddf66225e9c;hmacsha256",
            TENCENT_SECRET,
        ),
        // A secret that the gateway made is base64, too.
        (
            "PROD123456dev1",
            "PROD123456dev1;21010406;abcde;9223372036854775807",
            "b6a8fed6f9daabffb9b515ee9028e65ebec327ab;hmacsha1",
            b"00112233445566778899aabbccddeeff",
        ),
        ("app:billing", "billing", "s3cret", b"s3cret"),
    ] {
        assert_eq!(
            outcome(client_id, username, password, secret),
            Ok(true),
            "{username}"
        );
        assert_eq!(
            outcome(client_id, username, password, b"other"),
            Ok(false),
            "{username}"
        );
        assert_eq!(
            outcome(client_id, username, password, b""),
            Ok(false),
            "{username}"
        );
        let upper = password.to_uppercase();
        let is_right = outcome(client_id, username, upper, secret) == Ok(true);
        assert_eq!(
            is_right,
            client_id.contains("_0_"),
            "only digits have no case: {username}"
        );
    }
}

#[test]
fn the_hour_is_checked_where_the_sign_type_says_so() {
    let at = |now: u64, skew: Duration, sign: char| {
        let client_id = format!("prodX_node1_0_{sign}_2026112105");
        let password = HUAWEI_PASSWORD.as_bytes();
        let claim = Claim::read(&client_id, Some("prodX_node1"), Some(password));
        claim
            .proof(now, skew)
            .map(|proof| proof.is_of(HUAWEI_SECRET))
    };
    let begin = 1_795_237_200;
    for (now, skew, expected) in [
        (begin, Duration::ZERO, Ok(true)),
        (begin + 3_599, Duration::ZERO, Ok(true)),
        (begin + 3_600, Duration::ZERO, Err(Unproven::WrongHour)),
        (begin - 1, Duration::ZERO, Err(Unproven::WrongHour)),
        (begin - 3_600, HOUR, Ok(true)),
        (begin - 3_601, HOUR, Err(Unproven::WrongHour)),
        (begin + 7_199, HOUR, Ok(true)),
        (begin + 7_200, HOUR, Err(Unproven::WrongHour)),
        (0, HOUR, Err(Unproven::WrongHour)),
        (u64::MAX, HOUR, Err(Unproven::WrongHour)),
    ] {
        assert_eq!(at(now, skew, '1'), expected, "{now}");
        assert_eq!(at(now, skew, '0'), Ok(true), "{now}");
    }
}

#[test]
fn an_end_counts_only_when_it_is_past() {
    let now = 1_795_240_549;
    for (expiry, expected) in [
        ("1795240549", None),
        ("1795240548", Some(Unproven::Expired)),
        ("0", Some(Unproven::Expired)),
        ("18446744073709551615", None),
        ("18446744073709551616", Some(Unproven::Malformed)),
        ("-1", Some(Unproven::Malformed)),
        ("+1795240549", Some(Unproven::Malformed)),
        ("", Some(Unproven::Malformed)),
        ("soon", Some(Unproven::Malformed)),
    ] {
        let username = format!("PROD123456dev1;21010406;abcde;{expiry}");
        let claim = Claim::read(
            "PROD123456dev1",
            Some(&username),
            Some(PYTHON_PASSWORD.as_bytes()),
        );
        assert_eq!(claim.form, Form::Tencent);
        assert_eq!(claim.proof(now, HOUR).err(), expected, "{expiry}");
    }
}

#[test]
fn what_is_not_written_as_its_form_says_proves_nothing() {
    let huawei = |password: &[u8]| {
        outcome(
            "prodX_node1_0_1_2026112105",
            "prodX_node1",
            password,
            HUAWEI_SECRET,
        )
    };
    let tencent =
        |password: &[u8]| outcome("PROD123456dev1", PYTHON_USER, password, TENCENT_SECRET);
    let malformed = Err(Unproven::Malformed);
    for password in [
        &b""[..],
        b"12345678",
        &HUAWEI_PASSWORD.as_bytes()[..63],
        &[HUAWEI_PASSWORD.as_bytes(), b"0"].concat(),
        &[0xff; 64],
        b"\0",
        b" 1ec5160485c7f8270f91fd06de9e8c6ae92e25a3effed086d5e64622697865a",
    ] {
        assert_eq!(huawei(password), malformed);
    }
    let mac = &PYTHON_PASSWORD.as_bytes()[..40];
    for password in [
        &b""[..],
        mac,
        b";hmacsha1",
        &[mac, b";"].concat(),
        &[mac, b";hmacmd5"].concat(),
        &[mac, b";HMACSHA1"].concat(),
        &[mac, b";hmacsha256"].concat(),
        &[mac, b";hmacsha1;"].concat(),
        &[&mac[..39], b";hmacsha1"].concat(),
        &[0xfe; 49],
        TENCENT_SECRET,
    ] {
        assert_eq!(tencent(password), malformed);
    }
    // The right length and the wrong digits.
    let mut wrong = PYTHON_PASSWORD.as_bytes().to_vec();
    wrong[0] ^= 1;
    assert_eq!(tencent(&wrong), Ok(false));
    let mut wrong = HUAWEI_PASSWORD.as_bytes().to_vec();
    wrong[63] ^= 1;
    assert_eq!(huawei(&wrong), Ok(false));
    // A secret that is no base64 cannot have signed.
    assert_eq!(
        outcome(
            "PROD123456dev1",
            PYTHON_USER,
            PYTHON_PASSWORD,
            b"not-base64!"
        ),
        Ok(false)
    );
}

#[test]
fn the_username_is_signed_as_it_came() {
    for username in [
        "PROD123456dev1;21010406;9DXch;1795240549865",
        "PROD123456dev1;21010406;9DXcg;1795240549864",
        "PROD123456dev1;21010407;9DXch;1795240549864",
    ] {
        let outcome = outcome("PROD123456dev1", username, PYTHON_PASSWORD, TENCENT_SECRET);
        assert_eq!(outcome, Ok(false), "{username}");
    }
}

#[test]
fn a_password_may_be_binary_or_absent() {
    assert_eq!(
        outcome("c", "p_d", [0, 0xff, 0x80], &[0, 0xff, 0x80]),
        Ok(true)
    );
    assert_eq!(
        outcome("c", "p_d", [0, 0xff, 0x81], &[0, 0xff, 0x80]),
        Ok(false)
    );
    let claim = Claim::read("c", Some("p_d"), None);
    assert_eq!(claim.proof(NOW, HOUR).err(), Some(Unproven::NoPassword));
}

#[test]
fn nothing_prints_a_password() {
    let claim = Claim::read("c", Some("d"), Some(b"hunter22"));
    let proof = claim.proof(NOW, HOUR).expect("native");
    assert!(!format!("{claim:?} {proof:?}").contains("hunter22"));
}
