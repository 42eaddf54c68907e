//! Pages of lists: how long they are, and where they go on.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;

use crate::store::Page;
use crate::wire::error::ApiError;

const PAGE: usize = 50;
const LONGEST_PAGE: usize = 1000;

/// What a request says of the page that it wants.
pub(super) struct Paging {
    /// Items at most.
    pub(super) size: usize,
    /// Behind which item.
    pub(super) after: Option<Page>,
}

impl Paging {
    /// Reads `pageSize` and `pageToken`.
    pub(super) fn read(query: &[(String, String)]) -> Result<Paging, ApiError> {
        let size = match given(query, "pageSize") {
            None => PAGE,
            Some(text) => match text.parse::<usize>() {
                Ok(0) => PAGE,
                Ok(size) => size.min(LONGEST_PAGE),
                Err(_) => return Err(ApiError::invalid(format!("invalid page size {text:?}"))),
            },
        };
        let after = match given(query, "pageToken") {
            None => None,
            Some(token) => {
                let page = read(token);
                Some(page.ok_or_else(|| ApiError::invalid("invalid page token"))?)
            }
        };
        Ok(Paging { size, after })
    }
}

/// The value of a name in a query, if it is not empty.
pub(super) fn given<'a>(query: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let found = query.iter().find(|(given, _)| given == name);
    found
        .map(|(_, value)| value.as_str())
        .filter(|value| !value.is_empty())
}

/// The token of the page behind an item.
pub(super) fn token(created: i64, id: &str) -> String {
    URL_SAFE.encode(format!("{created} {id}"))
}

fn read(token: &str) -> Option<Page> {
    let text = String::from_utf8(URL_SAFE.decode(token).ok()?).ok()?;
    let (created, id) = text.split_once(' ')?;
    Some(Page {
        created: created.parse().ok()?,
        id: id.to_owned(),
    })
}
