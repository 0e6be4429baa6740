//! One file of Parquet: events of one name, column by column.

use std::{mem, sync::Arc};

use anyhow::Context as _;
use events::{Envelope, upcast::Newest};
use parquet::{
    basic::{Compression, ZstdLevel},
    data_type::{ByteArray, ByteArrayType, Int32Type, Int64Type},
    file::{properties::WriterProperties, writer::SerializedFileWriter},
    schema::{parser::parse_message_type, types::ColumnPath},
};
use tokio::task::{JoinHandle, spawn_blocking};

/// The columns, in the order of [`Table::add`]. Ids and payloads are text, which every reader of Parquet understands; the
/// event's name and the month are in the path.
const SCHEMA: &str = "message event {
    required int64 position;
    required binary event_id (UTF8);
    required binary aggregate_type (UTF8);
    required binary aggregate_id (UTF8);
    required int64 sequence;
    required int32 shard;
    optional binary community_id (UTF8);
    optional binary actor (UTF8);
    required binary correlation_id (UTF8);
    optional binary causation_id (UTF8);
    required int64 recorded_at (TIMESTAMP(MICROS, true));
    required int64 occurred_at (TIMESTAMP(MICROS, true));
    required int32 version;
    required binary payload (UTF8);
}";
/// Columns in which hardly a value comes twice: a dictionary of them would only be in the way.
const UNIQUE: [&str; 3] = ["event_id", "correlation_id", "payload"];
/// What an event takes besides its texts.
const ROW_BYTES: usize = 400;

/// Events, to be written.
#[derive(Debug, Default)]
pub(super) struct Table {
    group: Group,
    /// The groups before, in the making.
    file: Option<JoinHandle<anyhow::Result<File>>>,
}

type File = SerializedFileWriter<Vec<u8>>;

#[derive(Debug)]
struct Group {
    columns: Vec<Column>,
    bytes: usize,
}

#[derive(Debug)]
enum Column {
    Numbers(Vec<i64>),
    Small(Vec<i32>),
    Texts(Vec<ByteArray>),
    /// Those that are there, and for each row 1 or 0.
    Maybe(Vec<ByteArray>, Vec<i16>),
}

impl Default for Group {
    fn default() -> Self {
        let (numbers, small) = (|| Column::Numbers(vec![]), || Column::Small(vec![]));
        let (texts, maybe) = (|| Column::Texts(vec![]), || Column::Maybe(vec![], vec![]));
        let columns = vec![
            numbers(),
            texts(),
            texts(),
            texts(),
            numbers(),
            small(),
            maybe(),
            maybe(),
            texts(),
            maybe(),
            numbers(),
            numbers(),
            small(),
            texts(),
        ];
        Self { columns, bytes: 0 }
    }
}

/// A value on its way into its column.
enum Cell {
    Number(i64),
    Small(i32),
    Text(String),
    Maybe(Option<String>),
}

impl Table {
    /// Adds an event; answers how much it takes in memory, in bytes, more or less.
    pub(super) fn add(&mut self, event: &Envelope, newest: &Newest<'_>) -> usize {
        let metadata = &event.metadata;
        let cells = [
            Cell::Number(event.position),
            Cell::Text(event.event_id.to_string()),
            Cell::Text(event.stream.aggregate.clone()),
            Cell::Text(event.stream.id.clone()),
            Cell::Number(event.sequence),
            Cell::Small(event.shard.number().into()),
            Cell::Maybe(event.community.map(|id| id.to_string())),
            Cell::Maybe(metadata.actor.map(|id| id.to_string())),
            Cell::Text(metadata.correlation_id.to_string()),
            Cell::Maybe(metadata.causation_id.map(|id| id.to_string())),
            Cell::Number(event.recorded_at.timestamp_micros()),
            Cell::Number(event.occurred_at().timestamp_micros()),
            Cell::Small(i32::try_from(newest.version).unwrap_or(i32::MAX)),
            Cell::Text(newest.payload.get().to_owned()),
        ];
        for (column, cell) in self.group.columns.iter_mut().zip(cells) {
            column.add(cell);
        }
        let bytes = ROW_BYTES + newest.payload.get().len();
        self.group.bytes += bytes;
        bytes
    }

    /// Bytes of events that are not on their way into the file yet, more or less.
    pub(super) fn waiting(&self) -> usize {
        self.group.bytes
    }

    /// Makes a row group of what was added, which is encoded beside whatever comes next, once the group before it is.
    pub(super) async fn encode(&mut self) -> anyhow::Result<()> {
        let file = match self.file.take() {
            Some(file) => file.await??,
            None => begin()?,
        };
        let group = mem::take(&mut self.group);
        self.file = Some(spawn_blocking(|| group.append_to(file)));
        Ok(())
    }

    /// The file. The same events give the same bytes, by the same release.
    pub(super) async fn finish(mut self) -> anyhow::Result<Vec<u8>> {
        if self.group.bytes > 0 {
            self.encode().await?;
        }
        Ok(self.file.context("a file of no events")?.await??.into_inner()?)
    }
}

fn begin() -> anyhow::Result<File> {
    let schema = Arc::new(parse_message_type(SCHEMA)?);
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_created_by(concat!("agora ", env!("CARGO_PKG_VERSION")).to_owned());
    for column in UNIQUE {
        properties = properties.set_column_dictionary_enabled(ColumnPath::from(column), false);
    }
    Ok(SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties.build()))?)
}

impl Group {
    fn append_to(self, mut file: File) -> anyhow::Result<File> {
        let mut group = file.next_row_group()?;
        for column in self.columns {
            let mut writer = group.next_column()?.context("the schema has a column too few")?;
            match column {
                Column::Numbers(values) => writer.typed::<Int64Type>().write_batch(&values, None, None)?,
                Column::Small(values) => writer.typed::<Int32Type>().write_batch(&values, None, None)?,
                Column::Texts(values) => writer.typed::<ByteArrayType>().write_batch(&values, None, None)?,
                Column::Maybe(values, there) => {
                    writer.typed::<ByteArrayType>().write_batch(&values, Some(&there), None)?
                }
            };
            writer.close()?;
        }
        group.close()?;
        Ok(file)
    }
}

impl Column {
    fn add(&mut self, cell: Cell) {
        match (self, cell) {
            (Self::Numbers(values), Cell::Number(value)) => values.push(value),
            (Self::Small(values), Cell::Small(value)) => values.push(value),
            (Self::Texts(values), Cell::Text(text)) => values.push(text.into_bytes().into()),
            (Self::Maybe(values, there), Cell::Maybe(text)) => {
                there.push(text.is_some().into());
                values.extend(text.map(|text| ByteArray::from(text.into_bytes())));
            }
            _ => unreachable!("cells are in the order of the columns"),
        }
    }
}
