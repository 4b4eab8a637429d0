-- What policies came to: the last evaluation that was handed in of each, as JSON.
CREATE TABLE evaluations (
    policy TEXT PRIMARY KEY,
    body TEXT NOT NULL
);
