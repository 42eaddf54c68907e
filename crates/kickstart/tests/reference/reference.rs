//! The running reference: one Python process that answers question after question.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::differences::{Answer, Input};

pub(crate) struct Reference {
    child: Child,
    questions: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

/// The interpreter that pykickstart is installed for: beside `ksvalidator`, on the `PATH` or where `cargo xtask prerequisites` puts it.
fn interpreter() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let own = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../tools/python/bin");
    let mut places: Vec<PathBuf> = std::env::split_paths(&path).collect();
    places.push(own);
    let place = places.into_iter().find(|p| p.join("ksvalidator").is_file());
    let place =
        place.expect("pykickstart's ksvalidator is missing: run `cargo xtask prerequisites`");
    place.join("python3")
}

impl Reference {
    pub(crate) fn start() -> Reference {
        let program = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reference/reference.py");
        let mut child = Command::new(interpreter())
            .arg(program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python starts");
        Reference {
            questions: child.stdin.take(),
            answers: BufReader::new(child.stdout.take().expect("a pipe")),
            child,
        }
    }

    /// What the reference makes of a text.
    pub(crate) fn ask(&mut self, input: &Input) -> Answer {
        let question = serde_json::to_string(input).expect("JSON");
        let questions = self.questions.as_mut().expect("a pipe");
        writeln!(questions, "{question}").expect("the reference takes a question");
        let mut answer = String::new();
        self.answers.read_line(&mut answer).expect("an answer");
        serde_json::from_str(&answer)
            .unwrap_or_else(|e| panic!("the reference answers {answer:?} to {question}: {e}"))
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        // Without questions it removes its directory and ends.
        drop(self.questions.take());
        drop(self.child.wait());
    }
}
