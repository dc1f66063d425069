import { defineConfig } from "vite";

// Relative URLs and no inlined assets: the pages' Content-Security-Policy allows files of this origin only.
export default defineConfig({
  base: "./",
  publicDir: "public",
  build: {
    outDir: "dist",
    emptyOutDir: true,
    manifest: "manifest.json",
    assetsInlineLimit: 0,
    modulePreload: false,
    cssCodeSplit: false,
    target: "es2022",
    cssTarget: ["chrome123", "firefox120", "safari17.5"], // the first with light-dark()
    rolldownOptions: { input: "src/main.ts" },
  },
});
