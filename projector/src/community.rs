//! Projection: communities, as their list and pages show them.

use chrono::{DateTime, Utc};
use events::{
    AccountId, CommunityEvent, Event,
    community::{
        Archived, Created, OwnerAdded, OwnerRemoved, Resumed, Settings, SettingsChanged, Suspended, Visibility,
    },
};
use sqlx::{PgConnection, types::Json};
use uuid::Uuid;

use crate::{
    projection::{Changed, Fault, Kept, Projection, Recorded},
    table::{Table, Word, Writes, read_table},
};

pub(crate) struct Communities;

read_table! {
    /// A community.
    Community in "community" {
        key { community_id: Uuid }
        slug: String,
        name: String,
        description: String,
        visibility: Word,
        status: Word,
        reactions: Json<Vec<String>>,
        owners: Json<Vec<AccountId>>,
        created_at: DateTime<Utc>,
        version: i64,
        position: i64,
    }
}

impl Projection for Communities {
    const NAME: &'static str = "community";
    const TABLES: &'static [Kept] = &[Kept::of_community("community")];
    type Rows = Table<Community>;

    fn concerns(event: &Event) -> bool {
        matches!(event, Event::Community(_))
    }

    async fn load(events: &[Recorded<'_>], from: &mut PgConnection) -> sqlx::Result<Self::Rows> {
        Table::load(events.iter().filter_map(|event| event.id().ok()), from).await
    }

    fn fold(rows: &mut Self::Rows, recorded: &Recorded<'_>, changed: &mut Changed) -> Result<(), Fault> {
        let Event::Community(event) = recorded.event else { return Ok(()) };
        let id = recorded.id()?;
        if let CommunityEvent::Created(Created { settings, owner }) = event {
            rows.put(begun(recorded, id, settings, *owner));
        }
        let community = rows.change(id)?;
        match event {
            CommunityEvent::Created(_) => {}
            CommunityEvent::SettingsChanged(SettingsChanged { settings }) => set_up(community, settings),
            CommunityEvent::OwnerAdded(OwnerAdded { account }) => community.owners.push(*account),
            CommunityEvent::OwnerRemoved(OwnerRemoved { account }) => community.owners.retain(|owner| owner != account),
            CommunityEvent::Suspended(Suspended { .. }) => community.status = "suspended".into(),
            CommunityEvent::Resumed(Resumed {}) => community.status = "active".into(),
            CommunityEvent::Archived(Archived {}) => community.status = "archived".into(),
        }
        community.version = recorded.version();
        community.position = recorded.position();
        changed.community(id);
        Ok(())
    }

    fn write(rows: Self::Rows, to: &mut Writes) {
        rows.write(to);
    }
}

fn begun(recorded: &Recorded<'_>, id: Uuid, settings: &Settings, owner: AccountId) -> Community {
    let mut community = Community {
        community_id: id,
        slug: String::new(),
        name: String::new(),
        description: String::new(),
        visibility: "public".into(),
        status: "active".into(),
        reactions: Json(Vec::new()),
        owners: Json(vec![owner]),
        created_at: recorded.at(),
        version: 0,
        position: 0,
    };
    set_up(&mut community, settings);
    community
}

fn set_up(community: &mut Community, settings: &Settings) {
    let Settings { slug, name, description, visibility, reactions } = settings.clone();
    (community.slug, community.name, community.description) = (slug, name, description);
    community.reactions = Json(reactions);
    let visibility = match visibility {
        Visibility::Public => "public",
        Visibility::Restricted => "restricted",
        Visibility::Private => "private",
    };
    community.visibility = visibility.into();
}
