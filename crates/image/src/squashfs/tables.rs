//! Lookup tables: metadata blocks, and behind them the places of these blocks.

use super::format::Put;
use super::metadata::Table;
use super::options::Options;
use super::output::{Output, Target};
use crate::Result;

/// Writes a table and its index. Returns where the index starts, which is what the superblock holds.
pub(super) fn write_lookup<W: Target>(
    output: &mut Output<W>,
    entries: &[u8],
    options: &Options,
) -> Result<u64> {
    let index = pack_lookup(output, entries, options)?;
    let start = output.position();
    output.write(&index)?;
    Ok(start)
}

/// Writes a table and returns its index: one 64-bit place per metadata block, from the start of the image.
pub(super) fn pack_lookup<W: Target>(
    output: &mut Output<W>,
    entries: &[u8],
    options: &Options,
) -> Result<Vec<u8>> {
    let mut table = Table::new(options)?;
    table.write_parallel(entries, options)?;
    let (packed, starts) = table.finish()?;
    let base = output.position();
    output.write(&packed)?;
    let mut index = Vec::with_capacity(starts.len() * 8);
    starts.iter().for_each(|start| index.put64(base + start));
    Ok(index)
}
