// Starts one of the emulator's services, "table" or "queue", with the arguments given, and ends it when standard input
// ends, so that no emulator outlives the test that started it, however that ended.
process.stdin.on("end", () => process.exit(0)).resume();
let [service] = process.argv.splice(2, 1);

// "tableByKey" is "table" finding an entity by its row key, as the service does. The emulator looks by the partition first,
// and through all of it: with 100,000 rows in one that takes it most of an hour to load them.
if (service === "tableByKey") {
  service = "table";
  const { prototype } = require("lokijs").Collection;
  const { findOne } = prototype;
  prototype.findOne = function (q) {
    return findOne.call(this, q && "RowKey" in q ? { RowKey: q.RowKey, PartitionKey: q.PartitionKey } : q);
  };
}
require(`azurite/dist/src/${service}/main.js`);
