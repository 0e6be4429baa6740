//! Rows of read tables: loaded by the batch, changed in memory, written back by the batch.
//!
//! [`read_table!`] declares a row once: its table, its key, its columns and how a written column merges with the one
//! that is there. All statements follow from that, and take the same form for one row and for ten thousand. What a batch
//! writes, into however many tables, is [one statement](Writes); many new rows of a table are copied in beside it.

use std::{collections::HashMap, fmt, mem};

use sqlx::{
    PgConnection, Postgres,
    error::BoxDynError,
    postgres::{PgArgumentBuffer, PgArguments, PgRow},
    query::Query,
};
use uuid::Uuid;

use crate::projection::Fault;

pub(crate) use cell::{Cell, Key, Path, Word, copy};

mod cell;

/// A statement that takes its parameters.
pub(crate) type Statement<'q> = Query<'q, Postgres, PgArguments>;

/// A row of a read table; [`read_table!`] implements it.
pub(crate) trait Row: Clone + fmt::Debug + Send + Sync + 'static {
    /// What identifies it: one column, or a tuple of several.
    type Key: Key;
    /// Its table. Unqualified: the connection's `search_path` says which schema's.
    const TABLE: &'static str;

    /// Its own key.
    fn key(&self) -> Self::Key;
    /// The SQL that reads and writes it.
    fn statements() -> &'static Statements;
    /// From a row that was selected.
    fn read(row: &PgRow) -> sqlx::Result<Self>;
    /// The parameters of what writes rows: an array for each column.
    fn bind(rows: Vec<Self>, statement: Statement<'_>) -> Statement<'_>;
    /// Its fields, as a binary `COPY` takes them.
    fn copy(&self, to: &mut PgArgumentBuffer) -> Result<(), BoxDynError>;
}

/// One column of a table.
pub(crate) struct Column {
    /// Its name.
    pub(crate) name: &'static str,
    /// The type in which a parameter carries it.
    pub(crate) sent_as: &'static str,
    /// What makes the column's own type of that.
    pub(crate) cast: &'static str,
    /// How a written value meets the one that is there.
    pub(crate) merge: Merge,
}

/// How a written value meets the one that is there.
#[derive(Clone, Copy)]
pub(crate) enum Merge {
    /// It takes its place.
    Replace,
    /// It is added: the rows in memory hold differences, and are never loaded.
    Add,
    /// The greater one stays.
    Greatest,
}

/// The SQL that reads and writes one table.
pub(crate) struct Statements {
    columns: String,
    select: Unnesting,
    upsert: Unnesting,
    delete: Unnesting,
}

/// SQL with one `unnest` of parameters in it, an array for each column.
struct Unnesting {
    before: String,
    types: Vec<&'static str>,
    /// How its rows are called, and their columns.
    named: String,
    after: String,
}

impl Unnesting {
    /// With its parameters numbered behind so many of others; and what its rows are joined with.
    fn behind(&self, others: usize, joined: &str) -> String {
        let Self { before, types, named, after } = self;
        let numbered = types.iter().zip(others + 1..);
        let arrays: Vec<String> = numbered.map(|(of, number)| format!("${number}::{of}[]")).collect();
        format!("{before}unnest({}) {named}{joined}{after}", arrays.join(", "))
    }
}

impl Statements {
    /// For the table of these columns, of which the first `keys` are the primary key.
    pub(crate) fn new(table: &str, keys: usize, columns: &[Column]) -> Self {
        let (key, rest) = columns.split_at(keys);
        let list = |of: &[Column], text: fn(&Column) -> String| of.iter().map(text).collect::<Vec<_>>().join(", ");
        let types = |of: &[Column]| of.iter().map(|column| column.sent_as).collect();
        let names = list(columns, |column| column.name.to_owned());
        let key_names = list(key, |column| column.name.to_owned());
        let values = list(columns, |column| format!("n.{}{}", column.name, column.cast));
        let on_conflict = if rest.is_empty() {
            "do nothing".to_owned()
        } else {
            let set = |Column { name, merge, .. }: &Column| match merge {
                Merge::Replace => format!("{name} = excluded.{name}"),
                Merge::Add => format!("{name} = o.{name} + excluded.{name}"),
                Merge::Greatest => format!("{name} = greatest(o.{name}, excluded.{name})"),
            };
            format!("do update set {}", rest.iter().map(set).collect::<Vec<_>>().join(", "))
        };
        Self {
            select: Unnesting {
                before: format!("select {names} from "),
                types: types(key),
                named: format!("k ({key_names})"),
                after: format!(" join {table} using ({key_names})"),
            },
            upsert: Unnesting {
                before: format!("insert into {table} as o ({names}) select {values} from "),
                types: types(columns),
                named: format!("n ({names})"),
                after: format!(" on conflict ({key_names}) {on_conflict}"),
            },
            delete: Unnesting {
                before: format!("delete from {table} where ({key_names}) in (select {key_names} from "),
                types: types(key),
                named: format!("k ({key_names})"),
                after: ")".to_owned(),
            },
            columns: names,
        }
    }
}

/// What gives a statement its parameters.
type Bind = Box<dyn for<'q> FnOnce(Statement<'q>) -> Statement<'q> + Send>;

/// What decides, in the statement that writes, whether it writes.
pub(crate) struct Guard {
    /// What its `with` begins with.
    pub(crate) with: String,
    /// What each part is joined with: a row, or none.
    pub(crate) joined: &'static str,
    /// What the statement selects.
    pub(crate) select: &'static str,
    /// How many parameters it has.
    pub(crate) parameters: usize,
    /// Gives them to it.
    pub(crate) bind: Bind,
}

impl Guard {
    /// Lets everything pass.
    pub(crate) fn none() -> Self {
        fn nothing(statement: Statement<'_>) -> Statement<'_> {
            statement
        }
        let bind = Box::new(nothing);
        Self { with: "nothing as (select)".to_owned(), joined: "", select: "select where false", parameters: 0, bind }
    }
}

/// New rows of a table from which on they are copied in: that takes Postgres half of what inserting them does, and a
/// statement of its own.
const COPIED: usize = 64;
/// Bytes that are sent at once: Postgres takes in what came before meanwhile.
const CHUNK: usize = 64 * 1024;
/// What a binary `COPY` begins and ends with.
const COPY_HEADER: &[u8; 19] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
const COPY_TRAILER: [u8; 2] = (-1_i16).to_be_bytes();

/// What a batch writes, into all its tables: one statement, as each costs a small batch more than the rows in it; and one
/// for each table that is given many new rows.
#[derive(Default)]
pub(crate) struct Writes {
    parts: Vec<(&'static Unnesting, Bind)>,
    copies: Vec<(String, Result<PgArgumentBuffer, BoxDynError>)>,
    /// Whether what is put as new may be there.
    cautious: bool,
}

impl Writes {
    /// Nothing yet. `cautious`: nothing is copied in, as what is put as new may be there.
    pub(crate) fn new(cautious: bool) -> Self {
        Self { cautious, ..Self::default() }
    }

    /// Adds what is done to rows of one table that nothing else of this is done to.
    fn add(
        &mut self,
        part: &'static Unnesting,
        bind: impl for<'q> FnOnce(Statement<'q>) -> Statement<'q> + Send + 'static,
    ) {
        self.parts.push((part, Box::new(bind)));
    }

    /// Adds rows that are new.
    fn copy<R: Row>(&mut self, rows: &[R]) {
        let Statements { columns, upsert, .. } = R::statements();
        let fields = i16::try_from(upsert.types.len()).expect("a table has few columns");
        let bytes = || {
            let mut bytes = PgArgumentBuffer::default();
            bytes.extend_from_slice(COPY_HEADER);
            for row in rows {
                bytes.extend_from_slice(&fields.to_be_bytes());
                row.copy(&mut bytes)?;
            }
            bytes.extend_from_slice(&COPY_TRAILER);
            Ok(bytes)
        };
        self.copies.push((format!("copy {} ({columns}) from stdin (format binary)", R::TABLE), bytes()));
    }

    /// Adds all that another says.
    pub(crate) fn extend(&mut self, others: Self) {
        self.parts.extend(others.parts);
        self.copies.extend(others.copies);
    }

    /// Whether all of it is one statement.
    pub(crate) fn is_one_statement(&self) -> bool {
        self.copies.is_empty()
    }

    /// Writes all of it.
    pub(crate) async fn run(mut self, to: &mut PgConnection) -> sqlx::Result<()> {
        for (into, bytes) in mem::take(&mut self.copies) {
            let bytes = bytes.map_err(sqlx::Error::Encode)?;
            let mut copy = to.copy_in_raw(&into).await?;
            for chunk in bytes.chunks(CHUNK) {
                copy.send(chunk).await?;
            }
            copy.finish().await?;
        }
        if !self.parts.is_empty() {
            self.run_behind(Guard::none(), to).await?;
        }
        Ok(())
    }

    /// Writes what is [one statement](Self::is_one_statement), where a guard in it lets it pass; answers what that selects.
    pub(crate) async fn run_behind(self, guard: Guard, to: &mut PgConnection) -> sqlx::Result<Vec<PgRow>> {
        let (mut parts, mut parameters) = (Vec::new(), guard.parameters);
        for (nth, (part, _)) in self.parts.iter().enumerate() {
            parts.push(format!(", w{nth} as ({})", part.behind(parameters, guard.joined)));
            parameters += part.types.len();
        }
        let sql = format!("with {}{} {}", guard.with, parts.concat(), guard.select);
        let statement = (guard.bind)(sqlx::query(&sql));
        let statement = self.parts.into_iter().fold(statement, |statement, (_, bind)| bind(statement));
        statement.fetch_all(to).await
    }
}

/// The rows of one table that a batch touches.
pub(crate) struct Table<R: Row> {
    rows: HashMap<R::Key, Slot<R>>,
}

struct Slot<R> {
    /// None: there is no such row, or it is to go.
    row: Option<R>,
    changed: bool,
    /// The table has no such row.
    new: bool,
}

impl<R: Row> Default for Table<R> {
    fn default() -> Self {
        Self { rows: HashMap::new() }
    }
}

impl<R: Row> Table<R> {
    /// The rows of these keys, as far as they are there.
    pub(crate) async fn load(keys: impl IntoIterator<Item = R::Key>, from: &mut PgConnection) -> sqlx::Result<Self> {
        let mut keys: Vec<R::Key> = keys.into_iter().collect();
        keys.sort_unstable();
        keys.dedup();
        let mut table = Self::default();
        if !keys.is_empty() {
            table.add(R::Key::bind(keys, sqlx::query(&R::statements().select.behind(0, ""))), from).await?;
        }
        Ok(table)
    }

    /// Adds all rows whose `column` is one of `ids`.
    pub(crate) async fn add_where(&mut self, column: &str, ids: &[Uuid], from: &mut PgConnection) -> sqlx::Result<()> {
        if ids.is_empty() {
            return Ok(());
        }
        let sql = format!("select {} from {} where {column} = any($1)", R::statements().columns, R::TABLE);
        self.add(sqlx::query(&sql).bind(ids), from).await
    }

    /// Adds what a statement finds that selects all columns.
    pub(crate) async fn add(&mut self, statement: Statement<'_>, from: &mut PgConnection) -> sqlx::Result<()> {
        for found in statement.fetch_all(from).await? {
            let row = R::read(&found)?;
            self.rows.entry(row.key()).or_insert(Slot { row: Some(row), changed: false, new: false });
        }
        Ok(())
    }

    /// The row of that key, where it is there and was loaded or put.
    #[allow(clippy::needless_pass_by_value, reason = "most keys are copied")]
    pub(crate) fn get(&self, key: R::Key) -> Option<&R> {
        self.rows.get(&key)?.row.as_ref()
    }

    /// All rows in memory.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &R> {
        self.rows.values().filter_map(|slot| slot.row.as_ref())
    }

    /// The row of that key, to be changed.
    #[allow(clippy::needless_pass_by_value, reason = "most keys are copied")]
    pub(crate) fn change(&mut self, key: R::Key) -> Result<&mut R, Fault> {
        match self.rows.get_mut(&key) {
            Some(Slot { row: Some(row), changed, .. }) => {
                *changed = true;
                Ok(row)
            }
            _ => Err(Fault::NoRow { table: R::TABLE, key: format!("{key:?}") }),
        }
    }

    /// The row of that key, to be changed; `new` where there is none in memory.
    pub(crate) fn change_or(&mut self, key: R::Key, new: impl FnOnce() -> R) -> &mut R {
        let slot = self.rows.entry(key).or_insert(Slot { row: None, changed: true, new: false });
        slot.changed = true;
        slot.row.get_or_insert_with(new)
    }

    /// Puts a row that nobody has put before; or in the place of one that was loaded.
    pub(crate) fn put(&mut self, row: R) {
        let slot = self.rows.entry(row.key()).or_insert(Slot { row: None, changed: true, new: true });
        (slot.row, slot.changed) = (Some(row), true);
    }

    /// Puts a row in the place of what is there, loaded or not.
    pub(crate) fn replace(&mut self, row: R) {
        let slot = self.rows.entry(row.key()).or_insert(Slot { row: None, changed: true, new: false });
        (slot.row, slot.changed) = (Some(row), true);
    }

    /// Removes the row of that key, loaded or not.
    pub(crate) fn remove(&mut self, key: R::Key) {
        self.rows.insert(key, Slot { row: None, changed: true, new: false });
    }

    /// Adds what was changed, in the order of the keys.
    pub(crate) fn write(self, to: &mut Writes) {
        let mut changed: Vec<(R::Key, Slot<R>)> = self.rows.into_iter().filter(|(_, slot)| slot.changed).collect();
        changed.sort_unstable_by(|(key, _), (other, _)| key.cmp(other));
        let (mut new, mut rows, mut gone) = (Vec::new(), Vec::new(), Vec::new());
        for (key, slot) in changed {
            match slot.row {
                Some(row) if slot.new => new.push(row),
                Some(row) => rows.push(row),
                None => gone.push(key),
            }
        }
        if new.len() < COPIED || to.cautious {
            rows.append(&mut new);
        } else {
            to.copy(&new);
        }
        if !gone.is_empty() {
            to.add(&R::statements().delete, |statement| R::Key::bind(gone, statement));
        }
        if !rows.is_empty() {
            to.add(&R::statements().upsert, |statement| R::bind(rows, statement));
        }
    }
}

/// The columns of a row, as [`Table::add`] wants them selected.
pub(crate) fn columns<R: Row>() -> &'static str {
    &R::statements().columns
}

/// Declares a row of a read table. A column is replaced by what is written, unless `=> Add` or `=> Greatest` says
/// how it merges ([`Merge`]).
macro_rules! read_table {
    ($(
        $(#[$doc:meta])*
        $row:ident in $table:literal {
            key { $($key:ident: $key_type:ty),+ $(,)? }
            $($(#[$column_doc:meta])* $column:ident: $type:ty $(=> $merge:ident)?),* $(,)?
        }
    )+) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq)]
        #[allow(clippy::struct_field_names, reason = "columns are named as in the database")]
        pub(crate) struct $row {
            $(pub(crate) $key: $key_type,)+
            $($(#[$column_doc])* pub(crate) $column: $type,)*
        }

        impl $crate::table::Row for $row {
            type Key = $crate::table::read_table!(@key $($key_type),+);
            const TABLE: &'static str = $table;

            fn key(&self) -> Self::Key {
                ($(Clone::clone(&self.$key)),+)
            }

            fn statements() -> &'static $crate::table::Statements {
                use $crate::table::{Cell, Column, Merge, Statements};
                static STATEMENTS: std::sync::LazyLock<Statements> = std::sync::LazyLock::new(|| {
                    const KEYS: usize = [$(stringify!($key)),+].len();
                    Statements::new($table, KEYS, &[
                        $(Column {
                            name: stringify!($key),
                            sent_as: <$key_type as Cell>::SENT_AS,
                            cast: <$key_type as Cell>::CAST,
                            merge: Merge::Replace,
                        },)+
                        $(Column {
                            name: stringify!($column),
                            sent_as: <$type as Cell>::SENT_AS,
                            cast: <$type as Cell>::CAST,
                            merge: $crate::table::read_table!(@merge $($merge)?),
                        },)*
                    ])
                });
                &STATEMENTS
            }

            fn read(row: &sqlx::postgres::PgRow) -> sqlx::Result<Self> {
                use sqlx::Row as _;
                Ok(Self {
                    $($key: row.try_get(stringify!($key))?,)+
                    $($column: row.try_get(stringify!($column))?,)*
                })
            }

            fn bind(rows: Vec<Self>, statement: $crate::table::Statement<'_>) -> $crate::table::Statement<'_> {
                $(let mut $key: Vec<$key_type> = Vec::with_capacity(rows.len());)+
                $(let mut $column: Vec<$type> = Vec::with_capacity(rows.len());)*
                for row in rows {
                    $($key.push(row.$key);)+
                    $($column.push(row.$column);)*
                }
                statement$(.bind($key))+$(.bind($column))*
            }

            fn copy(
                &self,
                to: &mut sqlx::postgres::PgArgumentBuffer,
            ) -> Result<(), sqlx::error::BoxDynError> {
                $($crate::table::copy(&self.$key, to)?;)+
                $($crate::table::copy(&self.$column, to)?;)*
                Ok(())
            }
        }
    )+};
    (@key $type:ty) => { $type };
    (@key $($type:ty),+) => { ($($type),+) };
    (@merge) => { Merge::Replace };
    (@merge $merge:ident) => { Merge::$merge };
}
pub(crate) use read_table;
