"""Looks into the databases of a server that does not run: `data.py check|age|count|old|kept DATA [ARGUMENT...]`.

Prints one JSON object. The server's own code is not asked: it is what is being judged.
"""

import hashlib
import json
import os
import sqlite3
import sys


def opened(data, name):
    return sqlite3.connect(os.path.join(data, name))


def check(data):
    """Both databases are whole, and each object has its content and each content its object."""
    wrong = []
    for name in ("kiln.db", "objects/index.db"):
        said = [row[0] for row in opened(data, name).execute("PRAGMA integrity_check")]
        said += [f"foreign key: {row}" for row in opened(data, name).execute("PRAGMA foreign_key_check")]
        wrong += [f"{name}: {line}" for line in said if line != "ok"]
    index = opened(data, "objects/index.db")
    rows = index.execute("SELECT bucket, CAST(name AS TEXT), generation, size, md5 FROM object").fetchall()
    known = {f"@{generation}": (bucket, name, size, md5) for bucket, name, generation, size, md5 in rows}
    if len(known) != len(rows):
        wrong.append("two objects have one generation")
    for directory, _, files in os.walk(os.path.join(data, "objects/content")):
        for file in files:
            path = os.path.join(directory, file)
            if path == os.path.join(data, "objects/content/@owner"):
                continue  # Says which index the contents belong to.
            entry = known.pop(file, None)
            if entry is None:
                wrong.append(f"{path} belongs to no object")
                continue
            bucket, name, size, md5 = entry
            with open(path, "rb") as content:
                digest = hashlib.md5(content.read()).digest()
            if os.path.getsize(path) != size or digest != bytes(md5):
                wrong.append(f"{bucket}/{name} is not what it was")
    wrong += [f"{bucket}/{name} has no content" for bucket, name, _, _ in known.values()]
    wrong += [f"staging/{name} was left" for name in os.listdir(os.path.join(data, "objects/staging"))]
    wrong += [f"{place} is still doomed" for (place,) in index.execute("SELECT place FROM doomed")]
    database = opened(data, "kiln.db")
    for build, number in database.execute("SELECT build, number FROM attempts WHERE ended IS NULL"):
        wrong.append(f"attempt {number} of {build} has not ended")
    return {"objects": len(rows), "wrong": wrong}


def age(data):
    """All builds that have ended did so long ago."""
    database = opened(data, "kiln.db")
    with database:
        database.execute(
            "UPDATE builds SET build = json_set(build, '$.finishTime', '2020-01-01T00:00:00Z')"
            " WHERE status NOT IN ('QUEUED', 'WORKING')"
        )
    return count(data)


def count(data):
    """How many builds are on the list, and how many are being removed."""
    database = opened(data, "kiln.db")
    version = database.execute("PRAGMA user_version").fetchone()[0]
    tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}

    def held(table):
        return database.execute(f"SELECT count(*) FROM {table}").fetchone()[0] if table in tables else 0

    return {"version": version, "builds": held("builds"), "condemned": held("condemned")}


def old(data, dump, rows):
    """Makes a database of the first version, with as many builds."""
    os.makedirs(data)
    database = opened(data, "kiln.db")
    with open(dump, encoding="utf-8") as text:
        database.executescript(text.read())
    database.execute("PRAGMA journal_mode = WAL")
    # A dump does not say it.
    database.execute("PRAGMA user_version = 1")
    columns = [row[1] for row in database.execute("PRAGMA table_info(builds)")]
    copied = ["printf('%s-%06d', id, n)" if name == "id" else name for name in columns]
    with database:
        database.execute(
            "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < ?)"
            f" INSERT INTO builds ({', '.join(columns)}) SELECT {', '.join(copied)} FROM numbers,"
            " (SELECT * FROM builds ORDER BY id LIMIT 1)",
            (int(rows),),
        )
    return {"builds": database.execute("SELECT count(*) FROM builds").fetchone()[0]}


def kept(data, name):
    """What a copy of an older database holds, if there is one: whole, or an error."""
    path = os.path.join(data, name)
    if not os.path.exists(path):
        return {"there": False}
    database = sqlite3.connect(path)
    said = [row[0] for row in database.execute("PRAGMA integrity_check")]
    version = database.execute("PRAGMA user_version").fetchone()[0]
    builds = database.execute("SELECT count(*) FROM builds").fetchone()[0]
    return {"there": True, "said": said, "version": version, "builds": builds}


def main():
    verb, data, *rest = sys.argv[1:]
    verbs = {"check": check, "age": age, "count": count, "old": old, "kept": kept}
    json.dump(verbs[verb](data, *rest), sys.stdout)


main()
