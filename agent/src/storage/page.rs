//! Reading rows in pages that go on where the last one ended, whatever was added meanwhile.

use std::fmt::Display;

use sha2::{Digest, Sha256};
use sqlx::any::{AnyArguments, AnyRow};
use sqlx::{Any, AnyConnection, AssertSqlSafe, Encode, Row, Type};
use tokio_stream::StreamExt;

use super::Error;
use super::database::Database;
use super::journal::add;

/// Most rows of a page.
pub const MAX_LIMIT: u32 = 1000;
/// Rows of a page when nobody says how many.
const LIMIT: u32 = 100;

/// Which page.
#[derive(Clone, Debug, Default)]
pub struct Paging {
    /// `next` of the page before; empty for the first.
    pub token: String,
    /// Rows, 1 to 1000; 0 leaves it to us.
    pub limit: u32,
    pub newest_first: bool,
}

/// Some rows, and how to get at those after them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// Nothing at the end.
    pub next: Option<String>,
}

/// A query over a table with sequence numbers, put together from its conditions.
pub(super) struct Select {
    sql: String,
    arguments: AnyArguments,
    given: i64,
    /// What was asked, so that a token fits no other question.
    asked: Sha256,
}

impl Select {
    /// From a statement that ends within its conditions.
    pub fn new(select: &'static str) -> Select {
        let asked = Sha256::new_with_prefix(select);
        Select { sql: select.to_owned(), arguments: AnyArguments::default(), given: 0, asked }
    }

    /// Adds a condition that wants a value on its right, if there is a value.
    pub fn filter<T>(mut self, condition: &'static str, value: Option<T>) -> Result<Select, Error>
    where
        T: for<'q> Encode<'q, Any> + Type<Any> + Display,
    {
        if let Some(value) = value {
            let said = value.to_string();
            // PostgreSQL would refuse it, SQLite find nothing.
            if said.contains('\0') {
                return Err(Error::Invalid("filter: has a zero byte, which nothing stored has".to_owned()));
            }
            self.asked.update(format!("{condition} {}:{said}", said.len()));
            self.given += 1;
            let open = if condition.contains('(') { ")" } else { "" };
            self.sql.push_str(&format!(" AND {condition} ${}{open}", self.given));
            add(&mut self.arguments, value)?;
        }
        Ok(self)
    }

    /// Adds that a column of text may have a text in it, capitals aside; nothing where there is no text. All rows that
    /// have it fit, and perhaps others: whoever asks looks once more.
    pub fn containing(self, column: &'static str, text: Option<&str>) -> Result<Select, Error> {
        let Some(text) = text else { return Ok(self) };
        let sql = format!("{} AND lower({column}) LIKE", self.sql);
        let mut select = Select { sql: String::new(), ..self }.filter(column, Some(pattern(text)))?;
        select.sql = format!("{sql} ${} ESCAPE '!'", select.given);
        Ok(select)
    }

    /// All rows in order.
    pub async fn rows<T>(
        mut self,
        connection: &mut AnyConnection,
        read: impl Fn(&AnyRow) -> Result<T, Error>,
    ) -> Result<Vec<T>, Error> {
        self.sql.push_str(" ORDER BY sequence");
        self.fetch(connection, read).await
    }

    async fn fetch<T>(
        self,
        connection: &mut AnyConnection,
        read: impl Fn(&AnyRow) -> Result<T, Error>,
    ) -> Result<Vec<T>, Error> {
        let rows = sqlx::query_with(AssertSqlSafe(self.sql), self.arguments).fetch_all(connection).await?;
        rows.iter().map(read).collect()
    }

    /// The same over a connection of its own.
    pub async fn all<T>(
        self,
        database: &Database,
        read: impl Fn(&AnyRow) -> Result<T, Error>,
    ) -> Result<Vec<T>, Error> {
        self.rows(&mut *database.read().await?, read).await
    }

    /// The first rows of another order of which `read` makes something, however far one has to look for them.
    pub async fn first_of<T>(
        mut self,
        database: &Database,
        order: &'static str,
        limit: Option<i64>,
        read: impl Fn(&AnyRow) -> Result<Option<T>, Error>,
    ) -> Result<Vec<T>, Error> {
        let limit = within(limit)?;
        self.sql.push_str(&format!(" ORDER BY {order}"));
        let mut connection = database.read().await?;
        let mut rows = sqlx::query_with(AssertSqlSafe(self.sql), self.arguments).fetch(&mut *connection);
        let mut found = Vec::new();
        while (found.len() as i64) < limit
            && let Some(row) = rows.next().await
        {
            found.extend(read(&row?)?);
        }
        Ok(found)
    }

    /// The first rows of another order; 1 to 1000 of them, 100 where nobody says how many.
    pub async fn first<T>(
        mut self,
        database: &Database,
        order: &'static str,
        limit: Option<i64>,
        read: impl Fn(&AnyRow) -> Result<T, Error>,
    ) -> Result<Vec<T>, Error> {
        let limit = within(limit)?;
        self.sql.push_str(&format!(" ORDER BY {order} LIMIT {limit}"));
        self.fetch(&mut *database.read().await?, read).await
    }

    pub async fn page<T>(
        self,
        database: &Database,
        paging: &Paging,
        read: impl Fn(&AnyRow) -> Result<T, Error>,
    ) -> Result<Page<T>, Error> {
        let limit = match paging.limit {
            0 => LIMIT,
            1..=MAX_LIMIT => paging.limit,
            more => return Err(Error::Invalid(format!("limit: {more} rows; want 1 to {MAX_LIMIT}"))),
        };
        let (after, order) = if paging.newest_first { ("sequence <", "DESC") } else { ("sequence >", "ASC") };
        let seal = Sha256::digest([self.asked.clone().finalize().as_slice(), order.as_bytes()].concat());
        let last = if paging.token.is_empty() { None } else { Some(opened(&paging.token, &seal)?) };
        let mut select = self.filter(after, last)?;
        // One more tells whether there is another page.
        select.sql.push_str(&format!(" ORDER BY sequence {order} LIMIT {}", limit + 1));
        let mut connection = database.read().await?;
        let mut rows =
            sqlx::query_with(AssertSqlSafe(select.sql), select.arguments).fetch_all(&mut *connection).await?;
        let more = rows.len() > limit as usize;
        rows.truncate(limit as usize);
        let next = match rows.last() {
            Some(row) if more => Some(sealed(row.try_get("sequence")?, &seal)),
            _ => None,
        };
        Ok(Page { items: rows.iter().map(read).collect::<Result<_, _>>()?, next })
    }
}

/// What LIKE finds a text by in small letters, with `!` before signs that would mean something of their own. SQLite knows
/// the small letters of ASCII alone, and PostgreSQL those of its locale: any other letter stands for anything. So do i and
/// k, for one sign: İ and the sign of Kelvin become small as these.
fn pattern(text: &str) -> String {
    let mut pattern = "%".to_owned();
    for sign in text.to_lowercase().chars() {
        match sign {
            '%' | '_' | '!' => pattern.extend(['!', sign]),
            'i' | 'k' => pattern.push('_'),
            _ => pattern.push(if sign.is_ascii() { sign } else { '%' }),
        }
    }
    pattern + "%"
}

/// How many rows are wanted.
fn within(limit: Option<i64>) -> Result<i64, Error> {
    let limit = limit.unwrap_or(i64::from(LIMIT));
    if (1..=i64::from(MAX_LIMIT)).contains(&limit) {
        return Ok(limit);
    }
    Err(Error::Invalid(format!("limit: is {limit}, want 1 to {MAX_LIMIT}")))
}

/// A token: the last sequence number of a page and the beginning of what was asked.
fn sealed(sequence: i64, seal: &[u8]) -> String {
    format!("{sequence:016x}{}", hex(&seal[..4]))
}

fn opened(token: &str, seal: &[u8]) -> Result<i64, Error> {
    let sequence = token.get(..16).and_then(|digits| i64::from_str_radix(digits, 16).ok());
    sequence.filter(|&sequence| sealed(sequence, seal) == token).ok_or_else(|| {
        Error::Invalid(
            "page token: it belongs to no such query; ask for the first page without one".to_owned(),
        )
    })
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
