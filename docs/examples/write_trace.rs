// Writes a trace by hand, without a crate: rustc write_trace.rs && ./write_trace run.jsonl && specscope check run.jsonl
// One greedy turn of two steps: chains of up to two drafts. An engine puts its own numbers in place of these.
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Result, Write};

struct Trace {
    file: File,
    seq: usize,
    counts: BTreeMap<String, usize>,
}

impl Trace {
    fn new(path: &str) -> Result<Trace> {
        let file = OpenOptions::new().write(true).create_new(true).open(path)?; // an existing trace is kept
        Ok(Trace { file, seq: 0, counts: BTreeMap::new() })
    }

    // fields: what stands in the record beside seq and kind, as JSON without its braces.
    fn write(&mut self, kind: &str, fields: &str) -> Result<()> {
        let line = format!("{{\"seq\": {}, \"kind\": \"{kind}\", {fields}}}\n", self.seq);
        self.file.write_all(line.as_bytes())?; // one write per record: a killed run loses one line at most
        self.seq += 1;
        *self.counts.entry(kind.to_string()).or_insert(0) += 1;
        Ok(())
    }

    fn finish(mut self) -> Result<()> {
        let counts: Vec<String> = self.counts.iter().map(|(kind, count)| format!("\"{kind}\": {count}")).collect();
        let fields = format!("\"reason\": \"complete\", \"counts\": {{{}}}", counts.join(", ")); // digest may be left out
        self.write("run_end", &fields)
    }
}

struct Step {
    tokens: Vec<usize>, // per slot, the root first
    parents: Vec<usize>,
    argmax: Vec<usize>,
    path: Vec<usize>, // without the root
    bonus: usize,     // the teacher's own token after the path
    reason: Option<&'static str>,
}

fn main() -> Result<()> {
    let path = std::env::args().nth(1).unwrap_or("run.jsonl".to_string());
    let mut trace = Trace::new(&path)?;
    trace.write(
        "manifest",
        concat!(
            r#""schema": "specscope.trace/1.4", "run_id": "by-hand", "created": "2026-01-01T00:00:00+00:00","#,
            r#" "engine": "by hand 1", "versions": {}, "mode": "fused", "attention": "other", "dtype": "float32","#,
            r#" "device": {"backend": "cpu", "name": "any"}, "level": "decisions","#,
            r#" "teacher": {"name": "toy", "architecture": "Toy", "vocab_size": 32}, "drafter": {"kind": "ngram"},"#,
            r#" "tree_policy": {"kind": "chain", "depth": 2, "top_k": 1, "budget": 2}, "sampling": {"rule": "greedy"},"#,
            r#" "capabilities": ["tree", "verify", "accept", "stop"]"#
        ),
    )?;
    let (prompt, pending) = (vec![1, 5, 9], 7);
    trace.write(
        "turn_start",
        &format!(
            "\"turn\": 0, \"prompt_id\": \"p0\", \"prompt_turn\": 0, \"prompt_ids\": {prompt:?}, \"reused_length\": 0, \
             \"prefill\": {{\"num_tokens\": {}, \"pending_token\": {pending}}}",
            prompt.len()
        ),
    )?;
    let steps = [
        Step { tokens: vec![7, 4, 8], parents: vec![0, 0, 1], argmax: vec![4, 8, 2], path: vec![1, 2], bonus: 2, reason: None },
        Step { tokens: vec![2, 6], parents: vec![0, 0], argmax: vec![3, 0], path: vec![], bonus: 3, reason: Some("length") },
    ];
    let (mut output, mut by_depth, mut drafted, mut accepted) = (vec![pending], Vec::<usize>::new(), 0, 0);
    for (number, step) in steps.iter().enumerate() {
        let mut depths = vec![0];
        for slot in 1..step.tokens.len() {
            depths.push(depths[step.parents[slot]] + 1);
        }
        let mut emitted: Vec<usize> = step.path.iter().map(|&slot| step.tokens[slot]).collect();
        emitted.push(step.bonus);
        by_depth.resize(by_depth.len().max(step.path.len()), 0);
        by_depth.iter_mut().take(step.path.len()).for_each(|count| *count += 1);
        let reason = step.reason.map_or(String::new(), |reason| format!(", \"reason\": \"{reason}\""));
        trace.write(
            "step",
            &format!(
                "\"turn\": 0, \"step\": {number}, \
                 \"tree\": {{\"tokens\": {:?}, \"parents\": {:?}, \"depths\": {depths:?}}}, \
                 \"verify\": {{\"argmax\": {:?}}}, \
                 \"accept\": {{\"rule\": \"greedy\", \"path\": {:?}, \"accepted_length\": {}, \"bonus_token\": {}, \
                 \"bonus_slot\": {}}}, \
                 \"stop\": {{\"emitted\": {emitted:?}, \"kept\": {}{reason}}}",
                step.tokens, step.parents, step.argmax, step.path, step.path.len(), step.bonus,
                step.path.last().unwrap_or(&0), emitted.len()
            ),
        )?;
        output.extend(&emitted);
        drafted += step.tokens.len() - 1;
        accepted += step.path.len();
    }
    trace.write(
        "turn_end",
        &format!(
            "\"turn\": 0, \"output_ids\": {output:?}, \"reason\": \"length\", \"num_steps\": {}, \"num_drafted\": {drafted}, \
             \"num_accepted\": {accepted}, \"accepted_by_depth\": {by_depth:?}, \"duration_ns\": 81000000",
            steps.len()
        ),
    )?;
    trace.finish()
}
