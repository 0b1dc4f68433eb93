import { defineConfig } from "vite";

// Relative paths: the built page runs from any folder of any static server.
export default defineConfig({
  base: "./",
  build: { target: "es2022", chunkSizeWarningLimit: 2000 },
});
