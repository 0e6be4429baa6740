//! Where an export goes: a directory, or a prefix in S3. What is put there is there whole or not at all.

use std::{
    fmt, fs, io,
    path::{Path as FilePath, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;
use futures::TryStreamExt as _;
use object_store::{
    Error, ObjectStore, ObjectStoreExt as _, aws::AmazonS3Builder, local::LocalFileSystem, path::Path,
    prefix::PrefixStore,
};

/// A place for files.
#[derive(Clone, Debug)]
pub struct Target {
    store: Arc<dyn ObjectStore>,
    /// Where that is on this machine.
    local: Option<PathBuf>,
    name: String,
}

impl Target {
    /// `s3://bucket/prefix`, with what the `AWS_…` variables say (`AWS_ENDPOINT` for a store of one's own), or a
    /// directory, which is made.
    ///
    /// # Errors
    /// Where it is neither.
    pub fn parse(name: &str) -> anyhow::Result<Self> {
        if let Some(rest) = name.strip_prefix("s3://") {
            anyhow::ensure!(
                !rest.is_empty() && !rest.starts_with('/'),
                "{name} names no bucket: it is s3://bucket/prefix"
            );
            let bucket = AmazonS3Builder::from_env().with_url(name).build();
            let bucket = bucket.with_context(|| format!("cannot use {name}"))?;
            let prefix = Path::parse(rest.split_once('/').map_or("", |(_, prefix)| prefix))?;
            return Ok(Self { store: Arc::new(PrefixStore::new(bucket, prefix)), local: None, name: name.to_owned() });
        }
        anyhow::ensure!(!name.contains("://"), "{name} is neither a directory nor s3://bucket/prefix");
        anyhow::ensure!(!name.is_empty(), "nothing is named: it is a directory or s3://bucket/prefix");
        let (path, own) = (FilePath::new(name), "an export goes into a directory of its own");
        anyhow::ensure!(!path.is_file(), "{name} is a file: {own}");
        anyhow::ensure!(path.is_dir() || !path.exists(), "{name} is a device or a pipe: {own}");
        let open = || -> anyhow::Result<(PathBuf, LocalFileSystem)> {
            fs::create_dir_all(name)?;
            let path = FilePath::new(name).canonicalize()?;
            Ok((path.clone(), LocalFileSystem::new_with_prefix(path)?.with_fsync(true)))
        };
        let (path, store) = open().with_context(|| format!("cannot use the directory {name}"))?;
        Ok(Self { store: Arc::new(store), local: Some(path), name: name.to_owned() })
    }

    /// The same for all who mean this place, however they wrote it.
    pub fn place(&self) -> String {
        self.local.as_ref().map_or_else(|| self.name.clone(), |dir| dir.display().to_string())
    }

    /// Puts a file there, in the place of the one that is there.
    ///
    /// # Errors
    /// A full disk, for one, or no right to write.
    pub async fn put(&self, path: &str, bytes: Vec<u8>) -> anyhow::Result<()> {
        if let Some(dir) = &self.local {
            // What a run that was killed had of this file, as the store calls it until it is whole.
            match fs::remove_file(dir.join(format!("{path}#1"))) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
        }
        let put = self.store.put(&Path::parse(path)?, bytes.into()).await;
        put.map(drop).with_context(|| format!("cannot write {path} in {self}"))
    }

    /// A file, if it is there.
    ///
    /// # Errors
    /// Where it cannot be known.
    pub async fn get(&self, path: &str) -> anyhow::Result<Option<Vec<u8>>> {
        match self.store.get(&Path::parse(path)?).await {
            Ok(found) => Ok(Some(found.bytes().await?.to_vec())),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error).context(format!("cannot read {path} in {self}")),
        }
    }

    /// Whether nothing is there.
    ///
    /// # Errors
    /// Where it cannot be known.
    pub async fn is_empty(&self) -> anyhow::Result<bool> {
        let first = self.store.list(None).try_next().await;
        Ok(first.with_context(|| format!("cannot read {self}"))?.is_none())
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.fmt(f)
    }
}
