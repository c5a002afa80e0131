//! Documents into rows of one length, several to a row, none of which sees another.

use super::{Document, IGNORED};

/// More documents than this share a row only in vain: what looks for a token's document looks at all of them.
const MOST: usize = 64;
/// Rows that are open at once: enough that little is left empty, few enough that a large file is packed quickly.
const OPEN: usize = 128;

/// Positions side by side: of one row, or of several.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    /// The tokens that are read.
    pub ids: Vec<u32>,
    /// Each token's place in its document.
    pub positions: Vec<u32>,
    /// The token that follows, or [`IGNORED`].
    pub labels: Vec<u32>,
    /// (first position, positions) of each document.
    pub documents: Vec<(u32, u32)>,
}

/// Puts documents into rows, in the given order, each into the first open row with room. A row is a list of documents.
pub(super) fn pack(documents: &[Document], order: &[usize], sequence: usize, share: bool) -> Vec<Vec<usize>> {
    if !share {
        return order.iter().map(|&document| vec![document]).collect();
    }
    let mut full = Vec::new();
    // The room that a row has left, and its documents.
    let mut open: Vec<(usize, Vec<usize>)> = Vec::new();
    for &document in order {
        let length = documents[document].positions();
        match open.iter().position(|(room, row)| *room >= length && row.len() < MOST) {
            Some(at) => {
                open[at].0 -= length;
                open[at].1.push(document);
                if open[at].0 == 0 {
                    full.push(open.remove(at).1);
                }
            }
            None => {
                if open.len() == OPEN {
                    full.push(open.remove(0).1);
                }
                open.push((sequence - length, vec![document]));
            }
        }
    }
    full.extend(open.into_iter().map(|(_, row)| row));
    full
}

/// The most documents that any packing of these puts into a row.
pub(super) fn most_in_a_row(documents: &[Document], sequence: usize, share: bool) -> usize {
    let mut lengths: Vec<usize> = documents.iter().map(Document::positions).collect();
    lengths.sort_unstable();
    let mut sum = 0;
    let fit = lengths.iter().take_while(|&&length| {
        sum += length;
        sum <= sequence
    });
    if share { fit.take(MOST).count().max(1) } else { 1 }
}

/// At least as many labels as any packing of these puts into a row: the densest documents first, the last one in part.
pub(super) fn most_learned_in_a_row(documents: &[Document], sequence: usize, share: bool) -> usize {
    let learned = |document: &Document| document.counts.iter().filter(|&&counts| counts).count();
    if !share {
        return documents.iter().map(learned).max().unwrap_or(0);
    }
    let mut sizes: Vec<(usize, usize)> =
        documents.iter().map(|document| (learned(document), document.positions())).collect();
    sizes.sort_by(|one, other| (other.0 * one.1).cmp(&(one.0 * other.1)));
    let (mut room, mut most) = (sequence, 0.0);
    for (learned, positions) in sizes {
        let taken = positions.min(room);
        most += learned as f64 * taken as f64 / positions.max(1) as f64;
        room -= taken;
    }
    (most.ceil() as usize).min(sequence)
}

impl Rows {
    /// Appends a row of documents, filled up to `sequence` positions with what no document contains and nobody learns.
    pub(super) fn push<'a>(&mut self, row: impl Iterator<Item = &'a Document>, sequence: usize) {
        let end = self.ids.len() + sequence;
        for document in row {
            let length = document.positions();
            self.documents.push((self.ids.len() as u32, length as u32));
            self.ids.extend(&document.tokens[..length]);
            self.positions.extend(0..length as u32);
            let labels = document.tokens.iter().zip(&document.counts).skip(1);
            self.labels.extend(labels.map(|(&token, &counts)| if counts { token } else { IGNORED }));
        }
        self.ids.resize(end, 0);
        self.positions.resize(end, 0);
        self.labels.resize(end, IGNORED);
    }

    /// How many labels are learned.
    pub fn learned(&self) -> usize {
        self.labels.iter().filter(|&&label| label != IGNORED).count()
    }

    /// [spans, 4]: (first query, queries, first key, keys) of each document, and nothing for the rest.
    ///
    /// # Panics
    /// Where there are more documents than spans.
    pub fn spans(&self, spans: usize) -> Vec<u32> {
        assert!(self.documents.len() <= spans, "{} documents have {spans} spans", self.documents.len());
        let mut numbers: Vec<u32> =
            self.documents.iter().flat_map(|&(first, count)| [first, count, first, count]).collect();
        numbers.resize(spans * 4, 0);
        numbers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(first: u32, tokens: u32) -> Document {
        let mut counts = vec![true; tokens as usize];
        counts[0] = false;
        Document { tokens: (first..first + tokens).collect(), counts }
    }

    #[test]
    fn rows_are_filled_and_every_document_is_in_one() {
        let documents: Vec<Document> = [5, 4, 3, 6, 2, 7].map(|tokens| document(10, tokens)).into();
        let rows = pack(&documents, &[0, 1, 2, 3, 4, 5], 7, true);
        let mut all: Vec<usize> = rows.concat();
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2, 3, 4, 5]);
        for row in &rows {
            assert!(row.iter().map(|&at| documents[at].positions()).sum::<usize>() <= 7);
        }
        assert_eq!(rows, [[0, 1], [2, 3], [4, 5]], "4 + 3, 2 + 5 and 1 + 6 positions");
        assert_eq!(pack(&documents, &[3, 0], 7, false), [[3], [0]]);
        assert_eq!(most_in_a_row(&documents, 7, true), 3, "1 + 2 + 3 positions");
        assert_eq!(most_in_a_row(&documents, 7, false), 1);
        assert_eq!(most_learned_in_a_row(&documents, 7, true), 7);
        assert_eq!(most_learned_in_a_row(&documents, 7, false), 6);
        let sparse = |tokens, learned| {
            let counts = (0..tokens).map(|at| at >= tokens - learned).collect();
            Document { counts, ..document(0, tokens as u32) }
        };
        let sparse = [sparse(5, 1), sparse(4, 2), sparse(11, 3)];
        assert_eq!(most_learned_in_a_row(&sparse, 8, true), 4, "2 of 3, 3 of 10 for the other 5");
    }

    #[test]
    fn positions_begin_anew_and_labels_are_the_next_tokens() {
        let (one, mut two) = (document(20, 3), document(30, 4));
        two.counts[1] = false;
        let mut rows = Rows::default();
        rows.push([&one, &two].into_iter(), 6);
        rows.push([&one].into_iter(), 6);
        let no = IGNORED;
        assert_eq!(rows.ids, [20, 21, 30, 31, 32, 0, 20, 21, 0, 0, 0, 0]);
        assert_eq!(rows.positions, [0, 1, 0, 1, 2, 0, 0, 1, 0, 0, 0, 0]);
        assert_eq!(rows.labels, [21, 22, no, 32, 33, no, 21, 22, no, no, no, no]);
        assert_eq!(rows.documents, [(0, 2), (2, 3), (6, 2)]);
        assert_eq!(rows.learned(), 6);
        assert_eq!(rows.spans(4), [0, 2, 0, 2, 2, 3, 2, 3, 6, 2, 6, 2, 0, 0, 0, 0]);
    }
}
