//! Projection: accounts, as their cards and pages show them.

use chrono::{DateTime, Utc};
use events::{
    AccountEvent, Event,
    account::{Imported, PasswordChanged, Profile, ProfileChanged, Registered},
    post::Format,
};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    projection::{Changed, Fault, Kept, Projection, Recorded},
    table::{Table, Writes, read_table},
};

pub(crate) struct Accounts;

read_table! {
    /// An account.
    Account in "account" {
        key { account_id: Uuid }
        username: String,
        display_name: String,
        about: Option<String>,
        about_html: Option<String>,
        location: Option<String>,
        website: Option<String>,
        imported: bool,
        created_at: DateTime<Utc>,
        version: i64,
        position: i64,
    }
}

impl Projection for Accounts {
    const NAME: &'static str = "account";
    const TABLES: &'static [Kept] = &[Kept::new("account", "account_id = any($1)")];
    type Rows = Table<Account>;

    fn concerns(event: &Event) -> bool {
        matches!(event, Event::Account(_))
    }

    async fn load(events: &[Recorded<'_>], from: &mut PgConnection) -> sqlx::Result<Self::Rows> {
        Table::load(events.iter().filter_map(|event| event.id().ok()), from).await
    }

    fn fold(rows: &mut Self::Rows, recorded: &Recorded<'_>, changed: &mut Changed) -> Result<(), Fault> {
        let Event::Account(event) = recorded.event else { return Ok(()) };
        let id = recorded.id()?;
        match event {
            AccountEvent::Registered(Registered { username, profile }) => {
                rows.put(begun(recorded, id, username, profile, false));
            }
            AccountEvent::Imported(Imported { username, profile, source: _ }) => {
                rows.put(begun(recorded, id, username, profile, true));
            }
            AccountEvent::ProfileChanged(ProfileChanged { profile }) => show(rows.change(id)?, profile),
            AccountEvent::PasswordChanged(PasswordChanged {}) => {}
        }
        let account = rows.change(id)?;
        account.version = recorded.version();
        account.position = recorded.position();
        changed.account(id);
        Ok(())
    }

    fn write(rows: Self::Rows, to: &mut Writes) {
        rows.write(to);
    }
}

fn begun(recorded: &Recorded<'_>, id: Uuid, username: &str, profile: &Profile, imported: bool) -> Account {
    let mut account = Account {
        account_id: id,
        username: username.to_owned(),
        display_name: String::new(),
        about: None,
        about_html: None,
        location: None,
        website: None,
        imported,
        created_at: recorded.at(),
        version: 0,
        position: 0,
    };
    show(&mut account, profile);
    account
}

fn show(account: &mut Account, profile: &Profile) {
    let Profile { display_name, about, location, website } = profile.clone();
    account.about_html = about.as_deref().map(|about| rendering::html(about, Format::Markdown));
    (account.display_name, account.about, account.location, account.website) = (display_name, about, location, website);
}
