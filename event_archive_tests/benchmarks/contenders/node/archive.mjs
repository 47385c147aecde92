// The specification's own stack: rows streamed from PostgreSQL through a CSV formatter into an upload, then deleted.
// node archive.mjs export|both DAY
import { once } from "node:events";
import { BlobServiceClient } from "@azure/storage-blob";
import { format } from "fast-csv";
import pg from "pg";
import QueryStream from "pg-query-stream";

const [job, day] = process.argv.slice(2);
const next = new Date(Date.parse(`${day}T00:00:00Z`) + 86_400_000).toISOString().slice(0, 10);
const { PGHOST, PGDATABASE, AZURE_STORAGE_CONNECTION_STRING, AZURE_STORAGE_CONTAINER } = process.env;
const window = `created_at >= $1::timestamp AND created_at < $2::timestamp`;

// The column has no time zone: its values are UTC.
pg.types.setTypeParser(1114, (text) => new Date(`${text.replace(" ", "T")}Z`));

const client = new pg.Client({ host: PGHOST, database: PGDATABASE, user: "postgres" });
await client.connect();
const rows = client.query(
  new QueryStream(`SELECT * FROM "Event" WHERE ${window} ORDER BY created_at, id`, [day, next], { batchSize: 1000 }),
);
const csv = format({ headers: true }).transform((row) => ({
  ...row,
  created_at: row.created_at.toISOString(),
  processed_at: row.processed_at?.toISOString() ?? "",
  payload: JSON.stringify(row.payload),
}));
rows.on("error", (error) => csv.destroy(error));
const blob = BlobServiceClient.fromConnectionString(AZURE_STORAGE_CONNECTION_STRING)
  .getContainerClient(AZURE_STORAGE_CONTAINER)
  .getBlockBlobClient(`titan-pulse-event-archive/events_${day}.csv`);
await blob.uploadStream(rows.pipe(csv), 8 * 1024 * 1024, 2, { blobHTTPHeaders: { blobContentType: "text/csv" } });
if (job === "both") {
  await client.query(`DELETE FROM "Event" WHERE ${window}`, [day, next]);
}
client.end();
await once(client, "end");
