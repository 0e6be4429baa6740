//! The keys that sign and verify access tokens: Ed25519 (RFC 8032), kept in the database, shared by all instances.

use std::collections::HashMap;

use anyhow::Context;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey,
    jwk::{AlgorithmParameters, Jwk, JwkSet, PublicKeyUse, ThumbprintHash},
};
use sqlx::{PgConnection, PgPool};

use super::IdentityConfig;

/// What stands before the seed in the DER form of a private key (PKCS#8 with RFC 8410, section 7).
const PKCS8_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
/// The key of the advisory lock under which a key is made: instances that start together make one.
const KEY_LOCK: i64 = 0x0073_6967_6e6b_6579;

/// Every key that verifies now.
pub(super) struct PublicKeys {
    by_kid: HashMap<String, DecodingKey>,
    published: JwkSet,
}

/// A key that signs.
pub(super) struct SigningKey {
    pub(super) kid: String,
    pub(super) key: EncodingKey,
    retires_at: DateTime<Utc>,
}

/// A new key, not yet stored.
pub(super) struct NewKey {
    pub(super) kid: String,
    pub(super) public: Vec<u8>,
    pub(super) seed: [u8; 32],
}

impl PublicKeys {
    /// The keys in the database.
    pub(super) async fn load(pool: &PgPool) -> anyhow::Result<Self> {
        let stored =
            sqlx::query!("select kid, public_key from signing_keys where expires_at > now() order by created_at")
                .fetch_all(pool)
                .await
                .context("cannot read the signing keys")?;
        Self::new(stored.into_iter().map(|key| (key.kid, key.public_key)))
    }

    /// Keys by `kid`: 32 bytes each.
    pub(super) fn new(keys: impl IntoIterator<Item = (String, Vec<u8>)>) -> anyhow::Result<Self> {
        let mut by_kid = HashMap::new();
        let mut published = JwkSet::default();
        for (kid, public) in keys {
            let key = DecodingKey::from_ed_der(&public);
            let mut jwk = Jwk::from_decoding_key(&key, Some(Algorithm::EdDSA))
                .with_context(|| format!("the stored signing key {kid} is broken"))?;
            jwk.common.key_id = Some(kid.clone());
            jwk.common.public_key_use = Some(PublicKeyUse::Signature);
            published.keys.push(jwk);
            by_kid.insert(kid, key);
        }
        Ok(Self { by_kid, published })
    }

    /// The key of that `kid`.
    pub(super) fn get(&self, kid: &str) -> Option<&DecodingKey> {
        self.by_kid.get(kid)
    }

    /// All of them, as others fetch them (RFC 7517).
    pub(super) fn published(&self) -> &JwkSet {
        &self.published
    }
}

impl SigningKey {
    /// The key that signs now, made where there is none or the last one retired.
    pub(super) async fn ensure(pool: &PgPool, config: &IdentityConfig) -> anyhow::Result<Self> {
        let mut transaction = pool.begin().await?;
        if let Some(key) = Self::newest(&mut transaction).await? {
            return Ok(key);
        }
        // In a statement of its own: those after it see what was committed while it waited.
        sqlx::query!("select pg_advisory_xact_lock($1)", KEY_LOCK).execute(&mut *transaction).await?;
        let key = match Self::newest(&mut transaction).await? {
            Some(key) => key,
            None => Self::add(&mut transaction, config).await?,
        };
        transaction.commit().await?;
        Ok(key)
    }

    /// Whether it may sign no more.
    pub(super) fn retired(&self) -> bool {
        self.retires_at <= Utc::now()
    }

    /// A key that never retires.
    #[cfg(test)]
    pub(super) fn new(kid: String, key: EncodingKey) -> Self {
        Self { kid, key, retires_at: DateTime::<Utc>::MAX_UTC }
    }

    async fn newest(connection: &mut PgConnection) -> anyhow::Result<Option<Self>> {
        let newest = sqlx::query!(
            "select kid, seed, retires_at from signing_keys where retires_at > now() order by created_at desc limit 1",
        )
        .fetch_optional(connection)
        .await
        .context("cannot read the signing keys")?;
        Ok(newest.map(|stored| Self { kid: stored.kid, key: private_key(&stored.seed), retires_at: stored.retires_at }))
    }

    async fn add(connection: &mut PgConnection, config: &IdentityConfig) -> anyhow::Result<Self> {
        let NewKey { kid, public, seed } = NewKey::generate()?;
        let retires_at = sqlx::query_scalar!(
            "insert into signing_keys (kid, public_key, seed, created_at, retires_at, expires_at)
             values ($1, $2, $3, now(), now() + make_interval(secs => $4), now() + make_interval(secs => $4 + $5))
             returning retires_at",
            kid,
            public,
            &seed[..],
            config.rotate_every.as_secs_f64(),
            config.overlap().as_secs_f64(),
        )
        .fetch_one(connection)
        .await
        .context("cannot store a new signing key")?;
        tracing::info!(kid, "made a new signing key");
        Ok(Self { kid, key: private_key(&seed), retires_at })
    }
}

impl NewKey {
    /// A random key, named by its thumbprint (RFC 7638).
    pub(super) fn generate() -> anyhow::Result<Self> {
        let seed: [u8; 32] = rand::random();
        let jwk = Jwk::from_encoding_key(&private_key(&seed), Algorithm::EdDSA)?;
        let AlgorithmParameters::OctetKeyPair(pair) = &jwk.algorithm else {
            anyhow::bail!("an Ed25519 key is no octet key pair");
        };
        Ok(Self { kid: jwk.thumbprint(ThumbprintHash::SHA256)?, public: BASE64_URL_SAFE_NO_PAD.decode(&pair.x)?, seed })
    }
}

/// The private key of a seed of 32 bytes.
pub(super) fn private_key(seed: &[u8]) -> EncodingKey {
    EncodingKey::from_ed_der(&[&PKCS8_PREFIX, seed].concat())
}
