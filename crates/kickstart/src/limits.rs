//! Bounds that keep a hostile file from taking time or memory without end.
//!
//! All are far above what any real kickstart needs; reaching one is an error with its place.

/// Commands, sections and package lines in one kickstart.
pub(crate) const ITEMS: usize = 200_000;
/// Findings that are kept; what comes after is only counted.
pub(crate) const DIAGNOSTICS: usize = 1_000;
/// Includes inside includes.
pub(crate) const DEPTH: usize = 32;
/// Texts that includes bring in.
pub(crate) const INCLUDES: usize = 10_000;
/// Bytes of all texts together.
pub(crate) const BYTES: usize = 64 << 20;
/// Lines of all sections together.
pub(crate) const SECTION_LINES: usize = 2_000_000;
/// Words of one line, and elements of one comma list.
pub(crate) const WORDS: usize = 50_000;
/// Characters of the input that a message repeats.
pub(crate) const QUOTE: usize = 60;
/// Characters of a word for which the nearest spelling is looked for.
pub(crate) const SPELLING: usize = 40;
