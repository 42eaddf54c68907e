//! The kickstart language: lexer, commands, sections, includes through a caller-supplied loader. Pure.
//!
//! [`parse`] never fails: it returns a [`Kickstart`] and [`Diagnostic`]s. The parser takes bytes, never a path;
//! what `%include` names is asked of a [`Loader`]. [`flatten`] writes a kickstart in canonical order, and
//! [`render`] shows a diagnostic with its line. What is accepted is what pykickstart 3.74 accepts, option by
//! option: see `data/options.json` and [`command_table`].

mod arguments;
mod ast;
mod causes;
mod command;
mod diagnostic;
mod flatten;
mod heredoc;
mod known;
mod limits;
mod packages;
mod parser;
mod render;
mod report;
mod rules;
mod section;
mod source;
mod spelling;
mod table;
mod values;
mod version;
mod words;

pub use ast::*;
pub use diagnostic::*;
pub use flatten::flatten;
pub use known::zone_of_today;
pub use parser::{Options, Parsed, parse};
pub use render::{Segment, Style, render, segments};
pub use source::{LoadError, Loaded, Loader, NoIncludes, include_candidates, is_url};
pub use spelling::nearest;
pub use table::{
    Argument, ArgumentKind, CommandEntry, CommandVariant, Count, State, ValueType, command_table,
};
pub use version::Version;
