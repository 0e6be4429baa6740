use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::*;
use crate::identity::keys::{NewKey, private_key};

struct Forge {
    key: SigningKey,
    keys: PublicKeys,
    rules: Rules,
    config: IdentityConfig,
}

impl Forge {
    fn new() -> Self {
        let NewKey { kid, public, seed } = NewKey::generate().expect("a key");
        let config = IdentityConfig::default();
        Self {
            key: SigningKey::new(kid.clone(), private_key(&seed)),
            keys: PublicKeys::new([(kid, public)]).expect("good keys"),
            rules: Rules::new(&config),
            config,
        }
    }

    fn claims(&self) -> Claims {
        Claims::new(ada(), &self.config, self.config.access_ttl)
    }

    fn check(&self, token: &str) -> Result<Identity, TokenError> {
        self.rules.check(token, &self.keys).map(|claims| claims.identity())
    }

    fn signed(&self, change: impl FnOnce(&mut Claims)) -> Result<Identity, TokenError> {
        let mut claims = self.claims();
        change(&mut claims);
        self.check(&claims.sign(&self.key).expect("signed"))
    }
}

fn ada() -> Identity {
    Identity { account: Uuid::from_u128(1), session: Uuid::from_u128(2), operator: false }
}

fn part(value: &Value) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(value.to_string())
}

#[test]
fn a_token_of_ours_says_who_it_is() {
    let forge = Forge::new();
    assert_eq!(forge.signed(|_| ()), Ok(ada()));
    assert_eq!(forge.signed(|claims| claims.operator = true), Ok(Identity { operator: true, ..ada() }));
}

#[test]
fn a_token_says_what_it_is_and_by_which_key() {
    let forge = Forge::new();
    let token = forge.claims().sign(&forge.key).expect("signed");
    let header = decode_header(&token).expect("a header");
    assert_eq!((header.typ.as_deref(), header.kid.as_ref()), (Some("at+jwt"), Some(&forge.key.kid)));
    let jwk = &forge.keys.published().keys[0];
    let thumbprint = jwk.thumbprint(jsonwebtoken::jwk::ThumbprintHash::SHA256).expect("a thumbprint");
    assert_eq!((&thumbprint, jwk.common.key_id.as_ref()), (&forge.key.kid, Some(&forge.key.kid)));
    let published = serde_json::to_value(jwk).expect("JSON");
    assert_eq!(
        (&published["kty"], &published["crv"], &published["alg"], &published["use"]),
        (&json!("OKP"), &json!("Ed25519"), &json!("EdDSA"), &json!("sig"))
    );
}

#[test]
fn no_algorithm_is_no_token() {
    let forge = Forge::new();
    let claims = part(&serde_json::to_value(forge.claims()).expect("JSON"));
    for alg in ["none", "None", "NONE"] {
        let header = part(&json!({"alg": alg, "typ": "at+jwt", "kid": forge.key.kid}));
        assert_eq!(forge.check(&format!("{header}.{claims}.")), Err(TokenError::Malformed));
    }
}

#[test]
fn the_public_key_is_no_secret_to_sign_with() {
    let forge = Forge::new();
    let secret = forge.keys.get(&forge.key.kid).expect("known").try_get_as_bytes().expect("32 bytes");
    let header =
        Header { typ: Some(TYPE.to_owned()), kid: Some(forge.key.kid.clone()), ..Header::new(Algorithm::HS256) };
    let token = encode(&header, &forge.claims(), &jsonwebtoken::EncodingKey::from_secret(secret)).expect("signed");
    assert_eq!(forge.check(&token), Err(TokenError::Malformed));
}

#[test]
fn another_key_is_refused_under_its_own_name_and_under_ours() {
    let forge = Forge::new();
    let mut other = Forge::new().key;
    assert_eq!(forge.check(&forge.claims().sign(&other).expect("signed")), Err(TokenError::UnknownKey));
    other.kid.clone_from(&forge.key.kid);
    assert_eq!(forge.check(&forge.claims().sign(&other).expect("signed")), Err(TokenError::Signature));
}

#[test]
fn a_changed_token_is_refused() {
    let forge = Forge::new();
    let token = forge.claims().sign(&forge.key).expect("signed");
    let (header, rest) = token.split_once('.').expect("three parts");
    let (_, signature) = rest.split_once('.').expect("three parts");
    let mut claims = serde_json::to_value(forge.claims()).expect("JSON");
    claims["operator"] = json!(true);
    assert_eq!(forge.check(&format!("{header}.{}.{signature}", part(&claims))), Err(TokenError::Signature));
}

#[test]
fn the_wrong_time_place_or_maker_is_refused() {
    let forge = Forge::new();
    let hour = 3600;
    assert_eq!(forge.signed(|claims| claims.exp -= hour), Err(TokenError::Expired));
    assert_eq!(forge.signed(|claims| claims.nbf += hour), Err(TokenError::NotYetValid));
    assert_eq!(forge.signed(|claims| claims.aud = "elsewhere".to_owned()), Err(TokenError::Audience));
    assert_eq!(forge.signed(|claims| claims.iss = "elsewhere".to_owned()), Err(TokenError::Audience));
}

#[test]
fn another_kind_of_jwt_of_ours_is_no_access_token() {
    let forge = Forge::new();
    let header = Header { kid: Some(forge.key.kid.clone()), ..Header::new(Algorithm::EdDSA) };
    let token = encode(&header, &forge.claims(), &forge.key.key).expect("signed");
    assert_eq!(forge.check(&token), Err(TokenError::Malformed));
}

#[test]
fn rubbish_is_refused() {
    let forge = Forge::new();
    let long = "a".repeat(ACCESS_TOKEN_BYTES + 1);
    for token in ["", ".", "..", "a.b.c", "hello", &long] {
        assert_eq!(forge.check(token), Err(TokenError::Malformed), "{token}");
    }
    let header = part(&json!({"alg": "EdDSA", "typ": "at+jwt", "kid": forge.key.kid}));
    assert_eq!(forge.check(&format!("{header}.{}.AAAA", part(&json!({})))), Err(TokenError::Signature));
}
