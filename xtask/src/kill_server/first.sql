BEGIN TRANSACTION;
CREATE TABLE attempts (
        build TEXT NOT NULL REFERENCES builds (id),
        number INTEGER NOT NULL,
        began INTEGER NOT NULL,
        ended INTEGER,
        status TEXT NOT NULL,
        reason TEXT,
        PRIMARY KEY (build, number)
    ) STRICT;
INSERT INTO "attempts" VALUES('98908e45-db13-4f1a-a672-328800dfde45',1,1795909628691415211,1795909629096098744,'SUCCESS',NULL);
INSERT INTO "attempts" VALUES('25967849-4c58-4a2b-93c6-48472f277e65',1,1795909629096742074,1795909629181888725,'FAILURE','build step 0 "kiln" failed: step exited with non-zero status: 1');
CREATE TABLE audit (
        number INTEGER PRIMARY KEY,
        time INTEGER NOT NULL,
        who TEXT NOT NULL,
        what TEXT NOT NULL,
        build TEXT
    ) STRICT;
INSERT INTO "audit" VALUES(1,1795909628659069392,'anyone','create','98908e45-db13-4f1a-a672-328800dfde45');
INSERT INTO "audit" VALUES(2,1795909629055726618,'anyone','create','25967849-4c58-4a2b-93c6-48472f277e65');
CREATE TABLE builds (
        id TEXT PRIMARY KEY,
        project TEXT NOT NULL,
        location TEXT NOT NULL,
        created INTEGER NOT NULL,
        who TEXT NOT NULL,
        status TEXT NOT NULL,
        priority INTEGER NOT NULL,
        attempt INTEGER NOT NULL,
        cancelled INTEGER NOT NULL,
        retry_of TEXT,
        build TEXT NOT NULL,
        request TEXT NOT NULL,
        task TEXT NOT NULL
    ) STRICT;
INSERT INTO "builds" VALUES('98908e45-db13-4f1a-a672-328800dfde45','demo','global',1795909628612050428,'anyone','SUCCESS',0,1,0,NULL,'{"name":"projects/demo/locations/global/builds/98908e45-db13-4f1a-a672-328800dfde45","id":"98908e45-db13-4f1a-a672-328800dfde45","projectId":"demo","status":"SUCCESS","source":{"storageSource":{"bucket":"demo_cloudbuild","object":"source/s.tgz"}},"steps":[{"name":"kiln","args":["check","good.ks"],"timing":{"startTime":"2026-11-28T23:47:08.951438333Z","endTime":"2026-11-28T23:47:09.048818309Z"},"status":"SUCCESS","exitCode":0}],"results":{"buildStepImages":[""],"artifactManifest":"gs://demo_cloudbuild/out/artifacts-98908e45-db13-4f1a-a672-328800dfde45.json","numArtifacts":"1","artifactTiming":{"startTime":"2026-11-28T23:47:09.091584407Z","endTime":"2026-11-28T23:47:09.09474891Z"}},"createTime":"2026-11-28T23:47:08.612050428Z","startTime":"2026-11-28T23:47:08.658930625Z","finishTime":"2026-11-28T23:47:09.096288647Z","timeout":"3600s","queueTtl":"3600s","artifacts":{"objects":{"location":"gs://demo_cloudbuild/out","paths":["*.ks"]}},"logsBucket":"gs://demo_cloudbuild","logUrl":"http://127.0.0.1:8599/builds/98908e45-db13-4f1a-a672-328800dfde45/log","tags":["old"],"timing":{"BUILD":{"startTime":"2026-11-28T23:47:08.93940757Z","endTime":"2026-11-28T23:47:09.052085845Z"},"FETCHSOURCE":{"startTime":"2026-11-28T23:47:08.752756648Z","endTime":"2026-11-28T23:47:08.752895015Z"},"PUSH":{"startTime":"2026-11-28T23:47:09.091584407Z","endTime":"2026-11-28T23:47:09.09474891Z"}}}','{"artifacts":{"objects":{"location":"gs://demo_cloudbuild/out","paths":["*.ks"]}},"source":{"storageSource":{"bucket":"demo_cloudbuild","object":"source/s.tgz"}},"steps":[{"args":["check","good.ks"],"name":"kiln"}],"tags":["old"]}','{"steps":[{"image":"kiln","id":null,"args":["check","good.ks"],"env":[],"dir":"","timeout":null,"allow_failure":false,"allow_exit_codes":[],"after":[]}],"artifacts":{"location":"gs://demo_cloudbuild/out","paths":["*.ks"]},"timeout":3600.0,"queue_ttl":3600.0,"cpus":2,"priority":0}');
INSERT INTO "builds" VALUES('25967849-4c58-4a2b-93c6-48472f277e65','demo','global',1795909629051639329,'anyone','FAILURE',0,1,0,NULL,'{"name":"projects/demo/locations/global/builds/25967849-4c58-4a2b-93c6-48472f277e65","id":"25967849-4c58-4a2b-93c6-48472f277e65","projectId":"demo","status":"FAILURE","statusDetail":"build step 0 \"kiln\" failed: step exited with non-zero status: 1","source":{"storageSource":{"bucket":"demo_cloudbuild","object":"source/s.tgz"}},"steps":[{"name":"kiln","args":["check","none.ks"],"timing":{"startTime":"2026-11-28T23:47:09.10004295Z","endTime":"2026-11-28T23:47:09.115430172Z"},"status":"FAILURE","exitCode":1}],"createTime":"2026-11-28T23:47:09.051639329Z","startTime":"2026-11-28T23:47:09.096541745Z","finishTime":"2026-11-28T23:47:09.183069968Z","timeout":"3600s","queueTtl":"3600s","artifacts":{"objects":{"location":"gs://demo_cloudbuild/out","paths":["*.ks"]}},"logsBucket":"gs://demo_cloudbuild","logUrl":"http://127.0.0.1:8599/builds/25967849-4c58-4a2b-93c6-48472f277e65/log","tags":["old"],"timing":{"BUILD":{"startTime":"2026-11-28T23:47:09.099869741Z","endTime":"2026-11-28T23:47:09.12757167Z"},"FETCHSOURCE":{"startTime":"2026-11-28T23:47:09.099497806Z","endTime":"2026-11-28T23:47:09.099629713Z"}},"failureInfo":{"type":"USER_BUILD_STEP","detail":"build step 0 \"kiln\" failed: step exited with non-zero status: 1"}}','{"artifacts":{"objects":{"location":"gs://demo_cloudbuild/out","paths":["*.ks"]}},"source":{"storageSource":{"bucket":"demo_cloudbuild","object":"source/s.tgz"}},"steps":[{"args":["check","none.ks"],"name":"kiln"}],"tags":["old"]}','{"steps":[{"image":"kiln","id":null,"args":["check","none.ks"],"env":[],"dir":"","timeout":null,"allow_failure":false,"allow_exit_codes":[],"after":[]}],"artifacts":{"location":"gs://demo_cloudbuild/out","paths":["*.ks"]},"timeout":3600.0,"queue_ttl":3600.0,"cpus":2,"priority":0}');
CREATE TABLE tokens (
        name TEXT PRIMARY KEY,
        role TEXT NOT NULL,
        hash BLOB NOT NULL UNIQUE,
        created INTEGER NOT NULL
    ) STRICT;
INSERT INTO "tokens" VALUES('ann','submit',X'B25EF1ACDE2A128C96BA9E9C442C63C6373DB4A1BD6A02E71EF4EA39E0A25E25',1795909633051116382);
CREATE INDEX builds_by_time ON builds (project, created DESC, id DESC);
CREATE INDEX builds_open ON builds (status) WHERE status IN ('QUEUED', 'WORKING');
COMMIT;