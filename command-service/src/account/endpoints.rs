//! Registering, importing, and what an account changes of itself.

use axum::{extract::State, response::Response};
use events::{AccountId, Stream, account::Profile};
use garde::Validate;
use platform::{
    extract::{Json, Path},
    identity::{Identity, PasswordError},
    problem::Problem,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::OnceCell;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    Account, AccountCommand, AccountRefusal, ChangePassword, ChangeProfile, EMAIL, Import, KEPT_SESSION, PASSWORD,
    Register, USERNAME,
};
use crate::{
    App, Refusal,
    access::AccessRefusal,
    answer::{created, done},
    command::{Command, GuestCommand},
    place::{AccountPath, AccountRef, Found, actor},
    refusal::Refused,
    session::{Attempt, GuessRefusals},
    store::{Answer, Operation, Stop, StoreError, Work},
    text::{About, DisplayName, Email, Line, Password, Username, Website, chosen_id, present},
};

type Refusals = Refused<(AccessRefusal, AccountRefusal)>;
type PasswordRefusals = Refused<(AccessRefusal, AccountRefusal, GuessRefusals)>;

/// Who registers.
#[derive(Clone, Debug, Serialize, Deserialize, Validate, ToSchema)]
pub struct NewAccount {
    /// Its id; one is given where none is chosen.
    #[garde(custom(chosen_id))]
    pub id: Option<AccountId>,
    /// Unique on the platform.
    #[garde(dive)]
    pub username: Username,
    /// Unique on the platform; shown to nobody.
    #[garde(dive)]
    pub email: Email,
    /// At least 8 characters.
    #[garde(dive)]
    pub password: Password,
    /// The username where it is not said.
    #[garde(dive)]
    pub display_name: Option<DisplayName>,
}

/// An account of elsewhere.
#[derive(Clone, Debug, Serialize, Deserialize, Validate, ToSchema)]
pub struct ImportedAccount {
    /// Its id; one is given where none is chosen.
    #[garde(custom(chosen_id))]
    pub id: Option<AccountId>,
    /// Unique on the platform.
    #[garde(dive)]
    pub username: Username,
    /// The username where it is not said.
    #[garde(dive)]
    pub display_name: Option<DisplayName>,
    /// About itself, in Markdown.
    #[garde(dive)]
    pub about: Option<About>,
    /// Where it says it is.
    #[garde(dive)]
    pub location: Option<Line>,
    /// Its website.
    #[garde(dive)]
    pub website: Option<Website>,
    /// Where it comes from.
    #[garde(dive)]
    #[schema(example = "stackexchange/french-meta/42")]
    pub source: Line,
}

/// What changes of a profile: what is absent stays, null clears.
#[derive(Clone, Debug, Serialize, Deserialize, Validate, ToSchema)]
pub struct ProfilePatch {
    /// The name shown.
    #[garde(dive)]
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = DisplayName, required = false)]
    pub display_name: Option<DisplayName>,
    /// About itself, in Markdown.
    #[garde(dive)]
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<About>, required = false)]
    pub about: Option<Option<About>>,
    /// Where it is.
    #[garde(dive)]
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Line>, required = false)]
    pub location: Option<Option<Line>>,
    /// Its website.
    #[garde(dive)]
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Website>, required = false)]
    pub website: Option<Option<Website>>,
}

/// A new password.
#[derive(Clone, Debug, Serialize, Deserialize, Validate, ToSchema)]
pub struct PasswordChange {
    /// The one it takes the place of.
    #[garde(skip)]
    pub current_password: Password,
    /// At least 8 characters.
    #[garde(dive)]
    pub new_password: Password,
}

/// An account, as a command leaves it.
#[derive(Debug, Serialize, ToSchema)]
pub struct AccountChanged {
    id: AccountId,
    /// How often it changed: what `If-Match` compares.
    version: i64,
    #[schema(example = "ada")]
    username: String,
}

impl ProfilePatch {
    fn applied_to(&self, profile: &Profile) -> Profile {
        let Self { display_name, about, location, website } = self.clone();
        let old = profile.clone();
        Profile {
            display_name: display_name.map_or(old.display_name, String::from),
            about: about.map_or(old.about, |about| about.map(String::from)),
            location: location.map_or(old.location, |location| location.map(String::from)),
            website: website.map_or(old.website, |website| website.map(String::from)),
        }
    }
}

/// Registers an account.
///
/// The username and the e-mail address are unique on the platform, ignoring case. Log in with `POST /v2/sessions`. An
/// `Idempotency-Key` is the username's, so that no other guest's is in the way.
#[utoipa::path(
    post,
    path = "/v2/accounts",
    tag = "accounts",
    responses((status = 201, description = "Registered.", body = AccountChanged), PasswordRefusals),
    security(())
)]
pub(crate) async fn register(State(app): State<App>, command: GuestCommand, Json(body): Json<NewAccount>) -> Response {
    let id = body.id.unwrap_or_else(AccountId::new);
    let request = command.request(id, &body.username.0, &body);
    app.store.execute(request, &RegisterAccount { id, body, hash: OnceCell::new(), app: app.clone() }).await
}

/// Brings an account over from elsewhere. Operators only; nobody can log in to it.
#[utoipa::path(
    post,
    path = "/v2/accounts/import",
    tag = "accounts",
    responses((status = 201, description = "Imported.", body = AccountChanged), Refusals)
)]
pub(crate) async fn import(State(app): State<App>, command: Command, Json(body): Json<ImportedAccount>) -> Response {
    let id = body.id.unwrap_or_else(AccountId::new);
    app.store.execute(command.request(&body), &ImportAccount { id, body }).await
}

/// Changes one's own profile.
///
/// An operator may change anybody's.
#[utoipa::path(
    patch,
    path = "/v2/accounts/{account}",
    tag = "accounts",
    params(AccountPath),
    responses((status = 200, description = "It is so now.", body = AccountChanged), Refusals)
)]
pub(crate) async fn change_profile(
    State(app): State<App>,
    command: Command,
    Path(path): Path<AccountPath>,
    Json(body): Json<ProfilePatch>,
) -> Response {
    app.store.execute(command.request(&body), &PatchProfile { account: path.account, body }).await
}

/// Changes one's own password.
///
/// It ends every other session of the account: there, log in again with the new password.
#[utoipa::path(
    put,
    path = "/v2/accounts/{account}/password",
    tag = "accounts",
    params(AccountPath),
    responses((status = 200, description = "Changed.", body = AccountChanged), PasswordRefusals)
)]
pub(crate) async fn change_password(
    State(app): State<App>,
    command: Command,
    Path(path): Path<AccountPath>,
    Json(body): Json<PasswordChange>,
) -> Result<Response, Problem> {
    let Identity { account: asker, session, .. } = command.identity();
    let guess = app.attempts.admit(&asker.to_string())?;
    let request = command.request(&body);
    let (account, hash) = (path.account, OnceCell::new());
    let operation = ReplacePassword { account, body, session, guess, hash, app: app.clone() };
    let response = app.store.execute(request, &operation).await;
    if response.status().is_success() {
        app.identities.learn_of_endings().await?;
    }
    Ok(response)
}

/// The hash of a new password, made at most once, and only when everything cheaper was checked: it takes tens of
/// milliseconds.
async fn hashed(app: &App, password: &Password, hash: &OnceCell<String>) -> Result<String, Stop<Refusal>> {
    let made = hash.get_or_try_init(|| app.identities.passwords().hash(password.0.clone())).await;
    made.cloned().map_err(|error| unhashed(&error))
}

/// Whether the account that was answered has this password now. A password is in no fingerprint, so that whoever asks
/// again under a key is compared by the password itself.
async fn is_current(app: &App, answer: &Value, password: &Password) -> Result<bool, Problem> {
    let id = answer.get("id").and_then(Value::as_str).and_then(|id| id.parse().ok());
    let Some(account): Option<AccountId> = id else { return Ok(false) };
    // Who asks may be a guest: it must not become a way to guess.
    let guess = app.attempts.admit(&account.to_string())?;
    let hash = app.store.private(account, PASSWORD).await?;
    let proved = app.identities.passwords().verify(password.0.clone(), hash).await?;
    guess.ended(proved);
    Ok(proved)
}

fn unhashed(error: &PasswordError) -> Stop<Refusal> {
    Stop::Store(match error {
        PasswordError::Busy => StoreError::Busy,
        PasswordError::Hash(error) => StoreError::Rejected(error.to_string()),
    })
}

struct RegisterAccount {
    id: AccountId,
    body: NewAccount,
    hash: OnceCell<String>,
    app: App,
}

impl Operation for RegisterAccount {
    type Refusal = Refusal;

    async fn attempt(&self, work: &mut Work<'_>) -> Result<Answer, Stop<Refusal>> {
        let NewAccount { username, email, password, display_name, .. } = &self.body;
        let email = email.0.to_lowercase();
        let profile = profile(username, display_name.as_ref());
        let answer = make(work, self.id, username, Register { username: username.0.clone(), profile }.into()).await?;
        if work.lookup(EMAIL, &email).await?.is_some() {
            return Err(AccountRefusal::EmailTaken.into());
        }
        work.claim(EMAIL, email.clone(), self.id.to_string());
        work.keep_private(self.id, EMAIL, Some(email));
        work.keep_private(self.id, PASSWORD, Some(hashed(&self.app, password, &self.hash).await?));
        Ok(answer)
    }

    async fn repeats(&self, answer: &Value) -> Result<bool, Problem> {
        is_current(&self.app, answer, &self.body.password).await
    }

    fn taken(&self, kind: &str) -> Refusal {
        Refusal::taken(kind)
    }

    fn location(&self, body: &Value) -> Option<String> {
        location(body)
    }
}

struct ImportAccount {
    id: AccountId,
    body: ImportedAccount,
}

impl Operation for ImportAccount {
    type Refusal = Refusal;

    async fn attempt(&self, work: &mut Work<'_>) -> Result<Answer, Stop<Refusal>> {
        let by = actor(work.request()).as_operator()?;
        let ImportedAccount { username, display_name, about, location, website, source, .. } = self.body.clone();
        let profile = Profile {
            about: about.map(String::from),
            location: location.map(String::from),
            website: website.map(String::from),
            ..profile(&username, display_name.as_ref())
        };
        let import = Import { by, username: username.0.clone(), profile, source: source.into() };
        make(work, self.id, &username, import.into()).await
    }

    fn taken(&self, kind: &str) -> Refusal {
        Refusal::taken(kind)
    }

    fn location(&self, body: &Value) -> Option<String> {
        location(body)
    }
}

struct PatchProfile {
    account: AccountRef,
    body: ProfilePatch,
}

impl Operation for PatchProfile {
    type Refusal = Refusal;

    async fn attempt(&self, work: &mut Work<'_>) -> Result<Answer, Stop<Refusal>> {
        let id = self.account.find(work).await?;
        let actor = actor(work.request());
        if actor.account != Some(id) && !actor.operator {
            return Err(AccessRefusal::NotYourself.into());
        }
        work.in_account(id);
        let account = work.load::<Account>(&Stream::account(id)).await?;
        work.require_version(account.version)?;
        let profile = self.body.applied_to(&account.state.profile);
        change(work, id, ChangeProfile { profile }.into()).await.map(|changed| done(&changed))
    }

    fn taken(&self, kind: &str) -> Refusal {
        Refusal::taken(kind)
    }
}

struct ReplacePassword {
    account: AccountRef,
    body: PasswordChange,
    /// In which it is changed: the one that goes on.
    session: Uuid,
    /// However often it is attempted.
    guess: Attempt,
    hash: OnceCell<String>,
    app: App,
}

impl Operation for ReplacePassword {
    type Refusal = Refusal;

    async fn attempt(&self, work: &mut Work<'_>) -> Result<Answer, Stop<Refusal>> {
        let id = self.account.find(work).await?;
        if actor(work.request()).account != Some(id) {
            return Err(AccessRefusal::NotYourself.into());
        }
        work.in_account(id);
        let account = work.load::<Account>(&Stream::account(id)).await?;
        work.require_version(account.version)?;
        // Read after the version that guards it: a password that changes meanwhile makes this attempt one too many.
        let hash = self.app.store.private(id, PASSWORD).await?.ok_or(AccountRefusal::NoPassword)?;
        let current = self.body.current_password.0.clone();
        let passwords = self.app.identities.passwords();
        let proved = passwords.verify(current, Some(hash)).await.map_err(|error| unhashed(&error))?;
        self.guess.ended(proved);
        if !proved {
            return Err(AccountRefusal::WrongPassword.into());
        }
        work.keep_private(id, KEPT_SESSION, Some(self.session.to_string()));
        work.keep_private(id, PASSWORD, Some(hashed(&self.app, &self.body.new_password, &self.hash).await?));
        change(work, id, ChangePassword {}.into()).await.map(|changed| done(&changed))
    }

    async fn repeats(&self, answer: &Value) -> Result<bool, Problem> {
        is_current(&self.app, answer, &self.body.new_password).await
    }

    fn taken(&self, kind: &str) -> Refusal {
        Refusal::taken(kind)
    }
}

fn profile(username: &Username, display_name: Option<&DisplayName>) -> Profile {
    let display_name = display_name.map_or_else(|| username.0.clone(), |name| name.0.clone());
    Profile { display_name, ..Profile::default() }
}

/// What registering and importing have in common: the name, taken with the account.
async fn make(work: &mut Work<'_>, id: AccountId, username: &Username, command: AccountCommand) -> Found<Answer> {
    work.in_account(id);
    let changed = change(work, id, command).await?;
    let name = username.0.to_lowercase();
    if work.lookup(USERNAME, &name).await?.is_some() {
        return Err(AccountRefusal::UsernameTaken.into());
    }
    work.claim(USERNAME, name, id.to_string());
    Ok(created(&changed))
}

async fn change(work: &mut Work<'_>, id: AccountId, command: AccountCommand) -> Found<AccountChanged> {
    let account = work.handle::<Account>(&Stream::account(id), command, &()).await?;
    let username = account.state.username.clone().unwrap_or_default();
    Ok(AccountChanged { id, version: account.version, username })
}

fn location(body: &Value) -> Option<String> {
    Some(format!("/v2/accounts/{}", body.get("id")?.as_str()?))
}
