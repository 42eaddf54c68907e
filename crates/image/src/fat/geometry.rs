//! How many sectors make a cluster, and where the areas begin.

use super::{ROOT_CLUSTER, SECTOR};
use crate::disk::Bytes;
use crate::error::{Error, Result};

/// A volume with fewer clusters would be taken for FAT16 (fatgen103, "FAT Type Determination": under 65,525). Some
/// implementations are off by a few, so it advises to keep 16 away.
const MIN_CLUSTERS: u64 = 65_525 + 16;
const MAX_CLUSTERS: u64 = 0x0fff_fff5;
/// Reserved sectors of FAT32 volumes.
const RESERVED: u64 = 32;
/// Areas begin at multiples of 4 KiB, so that file systems below can share blocks.
const ALIGN: u64 = 8;
/// Volumes with a file that was written before they were laid out ([`super::Ahead`]): their clusters have 4 KiB, and begin at 16 MiB,
/// behind FATs for 8 GiB or behind more reserved sectors.
const AHEAD_PER_CLUSTER: u64 = 8;
const AHEAD_DATA: u64 = (16 << 20) / SECTOR;
/// Where such a file begins: before it there is 1 MiB for directories.
pub(super) const AHEAD_CLUSTER: u32 = ROOT_CLUSTER + (1 << 20 >> 12);
/// Sectors of the smallest volume: 65,541 clusters of one sector, two FATs and the reserved sectors, up to a MiB.
pub(super) const SMALLEST: Bytes = Bytes::mib(34);
/// As many clusters of 4 KiB, behind 16 MiB, up to a MiB.
pub(super) const SMALLEST_AHEAD: Bytes = Bytes::mib(273);

/// The volume's numbers, all in sectors but `clusters`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Geometry {
    pub(super) total: u32,
    pub(super) per_cluster: u64,
    pub(super) reserved: u64,
    pub(super) fat: u64,
    pub(super) clusters: u64,
}

impl Geometry {
    /// The geometry of a volume of `size` bytes: the largest clusters that leave enough of them for FAT32, but not over
    /// 4 KiB up to 8 GiB, 8 KiB up to 16, 16 KiB up to 32 and 32 KiB above, as Windows formats.
    pub(super) fn for_size(size: Bytes) -> Result<Self> {
        let total = u32::try_from(size.0 / SECTOR).map_err(|_| {
            Error::input(format!(
                "a FAT32 volume cannot have {size}; it ends at 2 TiB"
            ))
        })?;
        let most = match size.0 >> 30 {
            0..8 => 8,
            8..16 => 16,
            16..32 => 32,
            _ => 64,
        };
        [64, 32, 16, 8, 4, 2, 1]
            .into_iter()
            .filter(|per_cluster| *per_cluster <= most)
            .filter_map(|per_cluster| Geometry::new(total, per_cluster))
            .find(|g| g.clusters >= MIN_CLUSTERS)
            .ok_or_else(|| {
                Error::input(format!(
                    "a FAT32 volume needs at least {SMALLEST}, not {size}"
                ))
            })
    }

    /// The geometry of a volume of `size` bytes with a file that lies at [`Geometry::ahead`] already.
    pub(super) fn with_file_ahead(size: Bytes) -> Result<Self> {
        let clusters = (size.0 / SECTOR).saturating_sub(AHEAD_DATA) / AHEAD_PER_CLUSTER;
        let fat = ((clusters + u64::from(ROOT_CLUSTER)) * 4)
            .div_ceil(SECTOR)
            .next_multiple_of(ALIGN);
        let reserved = AHEAD_DATA.checked_sub(2 * fat).filter(|r| *r >= RESERVED);
        let total = u32::try_from(size.0 / SECTOR).ok();
        match total.zip(reserved) {
            Some((total, reserved)) if clusters >= MIN_CLUSTERS => Ok(Geometry {
                total,
                per_cluster: AHEAD_PER_CLUSTER,
                reserved,
                fat,
                clusters,
            }),
            _ => Err(Error::input(format!(
                "a boot partition with the root in it has from {SMALLEST_AHEAD} to 8 GiB, not {size}"
            ))),
        }
    }

    /// Byte offset in the volume of a file that is written before the volume is laid out.
    pub(super) const fn ahead() -> u64 {
        AHEAD_DATA * SECTOR + (AHEAD_CLUSTER - ROOT_CLUSTER) as u64 * AHEAD_PER_CLUSTER * SECTOR
    }

    fn new(total: u32, per_cluster: u64) -> Option<Self> {
        let all = u64::from(total);
        let reserved = RESERVED.max(per_cluster);
        let most = all.checked_sub(reserved)? / per_cluster + u64::from(ROOT_CLUSTER);
        let fat = (most * 4)
            .div_ceil(SECTOR)
            .next_multiple_of(ALIGN.max(per_cluster));
        let clusters = all.checked_sub(reserved + 2 * fat)? / per_cluster;
        (clusters <= MAX_CLUSTERS).then_some(Geometry {
            total,
            per_cluster,
            reserved,
            fat,
            clusters,
        })
    }

    /// Bytes of a cluster.
    pub(super) fn cluster(&self) -> u64 {
        self.per_cluster * SECTOR
    }

    /// Byte offset of a cluster in the volume.
    pub(super) fn offset(&self, cluster: u32) -> u64 {
        let index = u64::from(cluster.saturating_sub(ROOT_CLUSTER));
        (self.reserved + 2 * self.fat) * SECTOR + index * self.cluster()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cluster_sizes() {
        let per = |mib| Geometry::for_size(Bytes::mib(mib)).unwrap().per_cluster;
        assert_eq!([34, 100, 200, 300, 4096].map(per), [1, 2, 4, 8, 8]);
        assert_eq!([9 << 10, 20 << 10, 40 << 10].map(per), [16, 32, 64]);
        assert!(Geometry::for_size(Bytes::mib(32)).is_err());
        assert!(Geometry::for_size(Bytes::gib(4096)).is_err());
        assert!(Geometry::for_size(Bytes(0)).is_err());
    }

    #[test]
    fn a_file_ahead_has_one_place_in_all_volumes() {
        for size in [SMALLEST_AHEAD, Bytes::mib(1000), Bytes(8_589_000_704)] {
            let g = Geometry::with_file_ahead(size).unwrap();
            assert_eq!(g.offset(AHEAD_CLUSTER), Geometry::ahead(), "{g:?}");
            assert!(g.fat * SECTOR / 4 >= g.clusters + 2, "{g:?}");
            assert!(g.reserved >= RESERVED && u16::try_from(g.reserved).is_ok());
            assert!(g.offset(2) + g.clusters * g.cluster() <= size.0, "{g:?}");
        }
        assert!(Geometry::with_file_ahead(Bytes::mib(272)).is_err());
        assert!(Geometry::with_file_ahead(Bytes::gib(9)).is_err());
    }

    #[test]
    fn areas_are_aligned_and_large_enough() {
        for size in [
            35_651_584,
            67_108_864,
            100_000_256,
            1 << 33,
            1 << 35,
            1 << 40,
        ] {
            let g = Geometry::for_size(Bytes(size)).unwrap();
            assert!(g.fat * SECTOR / 4 >= g.clusters + 2, "{g:?}");
            assert_eq!(g.offset(2) % 4096, 0, "{g:?}");
            assert!(g.offset(2) + g.clusters * g.cluster() <= size, "{g:?}");
        }
    }
}
