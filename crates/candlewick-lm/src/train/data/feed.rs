//! Batches in an order that a seed and a position decide: whoever knows both goes on where another stopped.

use super::packing::{Rows, most_in_a_row, most_learned_in_a_row, pack};
use super::{Document, Documents};
use crate::train::Sizes;
use crate::train::random::{Purpose, random};
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

/// Where in the data a run is: the next row to be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// How often all documents were read, from 0.
    pub epoch: u64,
    /// Rows read of this epoch.
    pub row: usize,
}

/// The positions of a micro-batch, row after row.
pub type Batch = Rows;

/// An endless sequence of rows: each epoch has all documents, in an order of its own.
#[derive(Clone, Debug)]
pub struct Feed {
    documents: Vec<Document>,
    sequence: usize,
    share: bool,
    /// None: in the order of the file.
    seed: Option<u64>,
    position: Position,
    /// The rows of the epoch that `position` is in.
    rows: Vec<Vec<usize>>,
}

impl Feed {
    /// Rows of `sequence` positions, in which documents `share` a row or not, shuffled by a seed or not.
    ///
    /// # Panics
    /// Without documents, or where one is longer than a row.
    pub fn new(documents: Vec<Document>, sequence: usize, share: bool, seed: Option<u64>) -> Feed {
        assert!(!documents.is_empty(), "a feed has documents");
        assert!(documents.iter().all(|document| document.positions() <= sequence), "a document fits into a row");
        let mut feed = Feed { documents, sequence, share, seed, position: Position::default(), rows: Vec::new() };
        feed.rows = feed.epoch(0);
        feed
    }

    /// Where it is.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Goes on from a position.
    pub fn seek(&mut self, position: Position) {
        if position.epoch != self.position.epoch {
            self.rows = self.epoch(position.epoch);
        }
        self.position = position;
    }

    /// The next rows as one batch.
    pub fn next(&mut self, rows: usize) -> Batch {
        let mut batch = Batch::default();
        for _ in 0..rows {
            if self.position.row >= self.rows.len() {
                self.seek(Position { epoch: self.position.epoch + 1, row: 0 });
            }
            let row = &self.rows[self.position.row];
            batch.push(row.iter().map(|&document| &self.documents[document]), self.sequence);
            self.position.row += 1;
        }
        batch
    }

    /// All rows of this epoch in batches of `rows`, the last one filled with rows of nothing. The position stays.
    pub fn all(&self, rows: usize) -> impl Iterator<Item = Batch> + '_ {
        self.rows.chunks(rows).map(move |chunk| {
            let mut batch = Batch::default();
            for row in chunk {
                batch.push(row.iter().map(|&document| &self.documents[document]), self.sequence);
            }
            (chunk.len()..rows).for_each(|_| batch.push(std::iter::empty(), self.sequence));
            batch
        })
    }

    /// What a batch of `rows` can have at most, in any epoch.
    pub fn sizes(&self, rows: usize) -> Sizes {
        let documents = rows * most_in_a_row(&self.documents, self.sequence, self.share);
        let tokens = rows * self.sequence;
        let learned = rows * most_learned_in_a_row(&self.documents, self.sequence, self.share);
        // Products like whole blocks of rows; and where nearly all have labels, all are simpler.
        let learned = learned.next_multiple_of(16).min(tokens);
        Sizes { tokens, documents, learned: if 10 * learned >= 9 * tokens { tokens } else { learned } }
    }

    /// Rows of some epochs.
    pub fn rows_of(&self, epochs: u64) -> usize {
        (0..epochs)
            .map(|epoch| if epoch == self.position.epoch { self.rows.len() } else { self.epoch(epoch).len() })
            .sum()
    }

    /// How many documents there are.
    pub fn documents(&self) -> usize {
        self.documents.len()
    }

    /// Positions that documents take: what is read in an epoch.
    pub fn tokens(&self) -> usize {
        self.documents.iter().map(Document::positions).sum()
    }

    /// Labels that are learned in an epoch.
    pub fn learned(&self) -> usize {
        self.documents.iter().map(|document| document.counts.iter().filter(|&&counts| counts).count()).sum()
    }

    fn epoch(&self, epoch: u64) -> Vec<Vec<usize>> {
        let mut order: Vec<usize> = (0..self.documents.len()).collect();
        if let Some(seed) = self.seed {
            order.shuffle(&mut random(seed, Purpose::Order, epoch));
        }
        let mut rows = pack(&self.documents, &order, self.sequence, self.share);
        if let Some(seed) = self.seed {
            // Rows are closed when they are full, those of short documents last.
            rows.shuffle(&mut random(seed, Purpose::Rows, epoch));
        }
        rows
    }
}

impl Documents {
    /// Takes a share of the documents away, chosen by a seed: at least one, and at least one stays.
    pub fn split(&mut self, share: f64, seed: u64) -> Documents {
        let count =
            ((self.all.len() as f64 * share).round() as usize).clamp(1, self.all.len().saturating_sub(1).max(1));
        let mut order: Vec<usize> = (0..self.all.len()).collect();
        order.shuffle(&mut random(seed, Purpose::Split, 0));
        let mut chosen = vec![false; self.all.len()];
        order[..count.min(order.len() - 1)].iter().for_each(|&at| chosen[at] = true);
        let (mut taken, mut left) = (Vec::new(), Vec::new());
        for (document, chosen) in std::mem::take(&mut self.all).into_iter().zip(chosen) {
            if chosen { taken.push(document) } else { left.push(document) }
        }
        self.all = left;
        Documents { all: taken, ..Documents::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn documents(count: usize) -> Vec<Document> {
        let document = |nth: usize| {
            let tokens: Vec<u32> = (0..3 + nth as u32 % 7).map(|at| 100 * nth as u32 + at).collect();
            let mut counts = vec![true; tokens.len()];
            counts[0] = false;
            Document { tokens, counts }
        };
        (0..count).map(document).collect()
    }

    #[test]
    fn an_epoch_has_every_document_once_in_an_order_of_its_own() {
        let mut feed = Feed::new(documents(50), 16, true, Some(7));
        let firsts = |feed: &mut Feed| {
            let rows = feed.rows_of(feed.position().epoch + 1) - feed.rows_of(feed.position().epoch);
            let batch = feed.next(rows);
            batch.documents.iter().map(|&(first, _)| batch.ids[first as usize]).collect::<Vec<_>>()
        };
        let (mut one, mut two) = (firsts(&mut feed), firsts(&mut feed));
        assert_ne!(one, two);
        one.sort_unstable();
        two.sort_unstable();
        assert_eq!(one, (0..50).map(|nth| 100 * nth).collect::<Vec<u32>>());
        assert_eq!(one, two);
    }

    #[test]
    fn a_position_is_enough_to_go_on() {
        let mut feed = Feed::new(documents(20), 16, true, Some(1));
        let before: Vec<Batch> = (0..9).map(|_| feed.next(2)).collect();
        assert!(feed.position().epoch > 0);
        let after: Vec<Batch> = (0..9).map(|_| feed.next(2)).collect();
        let mut other = Feed::new(documents(20), 16, true, Some(1));
        let again: Vec<Batch> = (0..9).map(|_| other.next(2)).collect();
        assert_eq!(before, again);
        let mut third = Feed::new(documents(20), 16, true, Some(1));
        third.seek(other.position());
        assert_eq!(after, (0..9).map(|_| third.next(2)).collect::<Vec<_>>());
        assert_ne!(before, { Feed::new(documents(20), 16, true, Some(2)) }.all(2).take(9).collect::<Vec<_>>());
        assert!(before.iter().all(
            |batch| batch.documents.len() <= other.sizes(2).documents && batch.learned() <= other.sizes(2).learned
        ));
    }

    #[test]
    fn all_rows_once_and_the_last_batch_is_filled() {
        let feed = Feed::new(documents(5), 8, false, None);
        let batches: Vec<Batch> = feed.all(2).collect();
        assert_eq!(batches.len(), 3);
        assert!(batches.iter().all(|batch| batch.ids.len() == 16));
        assert_eq!(batches.iter().map(Batch::learned).sum::<usize>(), feed.learned());
        assert_eq!(batches[2].documents.len(), 1);
    }

    #[test]
    fn a_split_is_disjoint_and_its_seed_decides() {
        let split = |seed| {
            let mut all = Documents { all: documents(20), ..Documents::default() };
            let taken = all.split(0.1, seed);
            (taken.all, all.all)
        };
        let (taken, left) = split(3);
        assert_eq!((taken.len(), left.len()), (2, 18));
        assert!(taken.iter().all(|document| !left.contains(document)));
        assert_eq!(split(3), (taken.clone(), left));
        assert!((0..9).any(|seed| split(seed).0 != taken));
        let mut one = Documents { all: documents(1), ..Documents::default() };
        assert_eq!((one.split(0.5, 0).all.len(), one.all.len()), (0, 1), "one document stays");
    }
}
