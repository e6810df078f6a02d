//! Room for what is small and stays long: many cells to a page, so that nothing of it lies between the buffers of live
//! sessions and keeps their pages from the system.
//!
//! Invariants: a cell that is given back is wiped; a class of cells without any in use owns no page.

use zeroize::Zeroize as _;

/// What a page holds, in bytes; as many as a cell may have.
const PAGE_BYTES: usize = 64 * 1024;
/// Sizes of cells. What is frozen of a session with a key has some 200 bytes, with a certificate 600 and more.
const CLASSES: [usize; 8] = [192, 224, 256, 320, 512, 768, 1_280, 8_192];

/// Cells of memory.
#[derive(Debug, Default)]
pub(crate) struct Arena {
    classes: [Class; CLASSES.len()],
    bytes: usize,
}

#[derive(Debug, Default)]
struct Class {
    pages: Vec<Box<[u8]>>,
    free: Vec<u32>,
    used: u32,
}

/// A cell in use: it is neither copied nor forgotten, but given to [`Arena::free`].
#[derive(Debug)]
#[must_use]
pub(crate) struct Cell {
    index: u32,
    length: u16,
    class: u8,
}

impl Arena {
    /// Puts these bytes into a cell; `None`: there are too many of them.
    pub(crate) fn put(&mut self, bytes: &[u8]) -> Option<Cell> {
        let class = CLASSES.iter().position(|size| *size >= bytes.len())?;
        let size = CLASSES[class];
        let cells = &mut self.classes[class];
        if cells.free.is_empty() {
            let per_page = u32::try_from(PAGE_BYTES / size).ok()?;
            let first = u32::try_from(cells.pages.len())
                .ok()?
                .checked_mul(per_page)?;
            cells.pages.push(vec![0; PAGE_BYTES].into_boxed_slice());
            self.bytes += PAGE_BYTES;
            cells.free.extend((first..first + per_page).rev());
        }
        let cell = Cell {
            index: cells.free.pop()?,
            length: u16::try_from(bytes.len()).ok()?,
            class: u8::try_from(class).ok()?,
        };
        cells.used += 1;
        self.cell_mut(&cell).copy_from_slice(bytes);
        Some(cell)
    }

    /// What is in a cell.
    pub(crate) fn get(&self, cell: &Cell) -> &[u8] {
        let (page, at) = place(cell);
        &self.classes[usize::from(cell.class)].pages[page][at..at + usize::from(cell.length)]
    }

    /// Gives a cell back.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "nobody has a cell that was given back"
    )]
    pub(crate) fn free(&mut self, cell: Cell) {
        self.cell_mut(&cell).zeroize();
        let class = &mut self.classes[usize::from(cell.class)];
        class.free.push(cell.index);
        class.used -= 1;
        if class.used == 0 {
            self.bytes -= class.pages.len() * PAGE_BYTES;
            *class = Class::default();
        }
    }

    /// All pages, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    fn cell_mut(&mut self, cell: &Cell) -> &mut [u8] {
        let (page, at) = place(cell);
        &mut self.classes[usize::from(cell.class)].pages[page][at..at + usize::from(cell.length)]
    }
}

/// The page of a cell, and where in it the cell begins.
fn place(cell: &Cell) -> (usize, usize) {
    let size = CLASSES[usize::from(cell.class)];
    let (index, per_page) = (cell.index as usize, PAGE_BYTES / size);
    (index / per_page, index % per_page * size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_keep_what_is_put_into_them() {
        let mut arena = Arena::default();
        let text = |n: usize| vec![u8::try_from(n % 251).unwrap(); 1 + n % 1_400];
        let mut cells: Vec<_> = (0..3_000)
            .map(|n| (n, arena.put(&text(n)).unwrap()))
            .collect();
        for (n, cell) in cells.extract_if(.., |(n, _)| *n % 3 == 0) {
            assert_eq!(arena.get(&cell), text(n));
            arena.free(cell);
        }
        let bytes = arena.bytes();
        cells.extend(
            (0..3_000)
                .step_by(3)
                .map(|n| (n, arena.put(&text(n)).unwrap())),
        );
        assert_eq!(arena.bytes(), bytes, "room is used again");
        for (n, cell) in cells {
            assert_eq!(arena.get(&cell), text(n));
            arena.free(cell);
        }
        assert_eq!(arena.bytes(), 0);
    }

    #[test]
    fn what_fits_no_cell_is_refused() {
        assert!(Arena::default().put(&[0; 8_193]).is_none());
    }
}
