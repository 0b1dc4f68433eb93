// What survives a reload: one record in IndexedDB.

const NAME = "altprop";
const KEY = "weights";

function open() {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open(NAME, 1);
    request.onupgradeneeded = () => request.result.createObjectStore(NAME);
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

async function run(mode, work) {
  const database = await open();
  return new Promise((resolve, reject) => {
    const transaction = database.transaction(NAME, mode);
    const request = work(transaction.objectStore(NAME));
    transaction.oncomplete = () => resolve(request.result);
    transaction.onerror = () => reject(transaction.error);
  });
}

export const load = () => run("readonly", (store) => store.get(KEY));
export const save = (value) => run("readwrite", (store) => store.put(value, KEY));
export const forget = () => run("readwrite", (store) => store.delete(KEY));
