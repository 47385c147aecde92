// The specification's own stack: entries read by ioredis, one INSERT of many rows by pg, then acknowledged.
// node stream.mjs
import Redis from "ioredis";
import pg from "pg";

const { PGHOST, PGDATABASE, REDIS_URL, STREAM_KEY, STREAM_GROUP } = process.env;
const redis = new Redis(REDIS_URL.replace("unix://", ""));
const client = new pg.Client({ host: PGHOST, database: PGDATABASE, user: "postgres" });
await client.connect();
await client.query(`
  CREATE TABLE IF NOT EXISTS positions (
    device_id text, ts timestamptz, latitude float8, longitude float8, altitude float8, angle float8, satellites int,
    speed float8, priority int, attributes jsonb, stream_id text, PRIMARY KEY (device_id, ts))`);
await redis.xgroup("CREATE", STREAM_KEY, STREAM_GROUP, "0", "MKSTREAM").catch((error) => {
  if (!error.message.includes("BUSYGROUP")) throw error;
});
let stopped = false;
process.on("SIGTERM", () => {
  stopped = true;
});

const columns = 11;
const insert = (rows) => {
  const places = rows.map((_, n) => `(${Array.from({ length: columns }, (_, c) => `$${n * columns + c + 1}`).join()})`);
  return `INSERT INTO positions VALUES ${places.join()}
    ON CONFLICT (device_id, ts) DO UPDATE SET latitude = excluded.latitude, longitude = excluded.longitude,
      altitude = excluded.altitude, angle = excluded.angle, satellites = excluded.satellites, speed = excluded.speed,
      priority = excluded.priority, attributes = excluded.attributes, stream_id = excluded.stream_id`;
};
const row = ([id, fields]) => {
  const of = JSON.parse(fields[fields.indexOf("payload") + 1]);
  const { deviceId, timestamp, latitude, longitude, altitude, angle, satellites, speed, priority, attributes } = of;
  const position = [latitude, longitude, altitude, angle, satellites, speed, priority];
  return [deviceId, timestamp, ...position, JSON.stringify(attributes), id];
};

while (!stopped) {
  const read = await redis.xreadgroup(
    ...["GROUP", STREAM_GROUP, "one", "COUNT", 1000, "BLOCK", 1000, "STREAMS", STREAM_KEY, ">"],
  );
  for (const [, entries] of read ?? []) {
    const rows = entries.map(row);
    await client.query(insert(rows), rows.flat());
    await redis.xack(STREAM_KEY, STREAM_GROUP, ...entries.map(([id]) => id));
  }
}
redis.disconnect();
await client.end();
