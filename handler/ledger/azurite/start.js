// Starts one of the emulator's services, "table" or "queue", with the arguments given, and ends it when standard input
// ends, so that no emulator outlives the test that started it, however that ended.
process.stdin.on("end", () => process.exit(0)).resume();
const [service] = process.argv.splice(2, 1);
require(`azurite/dist/src/${service}/main.js`);
